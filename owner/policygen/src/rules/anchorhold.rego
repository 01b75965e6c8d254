# What this project's own agent tells the rules.

# The request as the policy writes it: its runtime leaves nothing to the node.
seen(_) := input

seen_exec(_) := input

# The guest itself saw the process end; a host that kills it makes another exit code.
succeeded(id) if data.guest.exits[id] == 0

# The same request again is answered as before and has no effect of its own.
CreateSandboxRequest := {"allowed": true, "repeat": true} if data.pstate.sandbox == input

CreateContainerRequest := {"allowed": true, "repeat": true} if {
	not data.pstate.destroyed
	data.pstate.containers[input.container_id].request == input
}

StartContainerRequest := {"allowed": true, "repeat": true} if data.pstate.containers[input.container_id].started

# The whole file in one request: a digest of a part would say nothing.
is_whole_file if {
	input.offset == 0
	input.file_size == input.data_size
}

holds(e) if {
	is_whole_file
	input.data_sha256 == e.sha256
}

holds(e) if {
	is_whole_file
	v := behind(e)
	bounded(e.kind, v)
	object.get(data.pstate.facts, e.is, v) == v
}

holds(e) if {
	is_whole_file
	e.free
	input.data_size <= 1048576
}

expected_data(e) := {
	"file_size": input.data_size,
	"data_sha256": object.get(e, "sha256", input.data_sha256),
	"data_text": contents(e),
} if e.mode

expected_data(e) := {} if not e.mode

contents(e) := input.data_text if not e.is

contents(e) := concat("", [before(e), "a value of the kind ", e.kind]) if e.is
