# Processes of containers: exec, signals, streams.

is_process if {
	data.pstate.containers[input.container_id]
	input.exec_id in {"", input.container_id}
}

is_process if data.pstate.containers[input.container_id].execs[input.exec_id]

exec_request(c) := {
	"container_id": input.container_id,
	"exec_id": input.exec_id,
	"process": object.union(c.request.OCI.Process, {"Args": input.process.Args, "Terminal": false}),
	"stderr_port": 0,
	"stdin_port": 0,
	"stdout_port": 0,
	"string_user": null,
}

exec_commands(c) := declared(c.name).exec_commands

is_allowed_exec(c) if input.process.Args in exec_commands(c)

is_allowed_exec(c) if {
	some command in declared(c.name).exec_patterns
	count(command) == count(input.process.Args)
	every i, word in command {
		fits_word(word, input.process.Args[i])
	}
}

fits_word(word, found) if word == found

fits_word(word, found) if is_within(word, found)

# Where the owner wants the whole pod: every declared container was created.
is_complete if not policy_data.whole

is_complete if count(not_created) == 0

not_created := [c.name | some c in policy_data.containers; not data.pstate.names[c.name]]

# Decided by this project's agent for each key that a container asks for.
ReleaseKeyRequest if {
	data.pstate.sandbox
	is_complete
}

is_new_exec(c) if {
	regex.match(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`, input.exec_id)
	input.exec_id != input.container_id
	not c.execs[input.exec_id]
}

ExecProcessRequest := {"allowed": true, "ops": [op(["containers", input.container_id, "execs", input.exec_id], true)]} if {
	c := data.pstate.containers[input.container_id]
	c.started
	is_new_exec(c)
	is_complete
	is_allowed_exec(c)
	request := exec_request(c)
	seen_exec(request) == request
}

# What containerd stops a container with: its own signal, then SIGKILL. Nothing else is an honest host's to send.
SignalProcessRequest if {
	is_process
	input.signal in stop_signals
}

stop_signals := {9, 15, object.get(declared(data.pstate.containers[input.container_id].name), "stop_signal", 15)}

WaitProcessRequest if is_process

StatsContainerRequest if data.pstate.containers[input.container_id]

TtyWinResizeRequest if {
	is_process
	data.pstate.containers[input.container_id].request.OCI.Process.Terminal
}

ReadStreamRequest if {
	policy_data.logs
	is_process
}

is_stdin if {
	is_process
	not data.pstate.containers[input.container_id].execs[input.exec_id].debug
	declared(data.pstate.containers[input.container_id].name).stdin
}

# The file is named by the path at which the container has it.
GetDiagnosticDataRequest if {
	input.log_type == declared(data.pstate.containers[input.container_id].name).termination_log
}

WriteStreamRequest if is_stdin

CloseStdinRequest if is_stdin
