# Debug sessions: the guest has verified the owner's grant before it asks here, and says what is in it. What may run in the
# container is the grant's to say; everything else of the process is the container's own.

debug_key := policy_data.debug_key

default DebugExecRequest := false

DebugExecRequest := {"allowed": true, "ops": [op(["containers", input.container_id, "execs", input.exec_id], {"debug": granted})]} if {
	c := data.pstate.containers[input.container_id]
	c.started
	c.name == data.guest.debug.container
	is_new_exec(c)
	is_complete
	input == object.union(exec_request(c), {"process": {"Terminal": input.process.Terminal}})
}

granted := {"stdin": data.guest.debug.stdin, "terminal": input.process.Terminal}

debugged := data.pstate.containers[input.container_id].execs[input.exec_id].debug

# Its output is for whoever holds the key, through the host, whether or not the host may read the containers' own.
ReadStreamRequest if debugged

WriteStreamRequest if debugged.stdin

# On a terminal it is a character.
CloseStdinRequest if {
	debugged
	not debugged.terminal
}

CloseStdinRequest if debugged.stdin

TtyWinResizeRequest if debugged.terminal
