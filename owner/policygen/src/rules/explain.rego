# Why not: evaluated after a denial, decides nothing.

explain_CreateSandboxRequest := array.concat(
	[{"text": "the sandbox is created already"} | data.pstate.sandbox],
	[r |
		not data.pstate.sandbox
		found := values(policy_data.sandbox.read, {})
		request := sandbox_request(found)
		some r in array.concat([{"request": request}], [u | request == input; some u in unread(policy_data.sandbox.read, found)])
	],
)

known_facts := object.get(data.pstate, "facts", {})

candidates := [c | c := declared(container_name)]

field(r) := sprintf("/%v", [concat("/", [sprintf("%v", [part]) | some part in r.path])]) if r.path

field(r) := sprintf("/OCI/Process/Env/%v", [[i | startswith(input.OCI.Process.Env[i], concat("", [r.env, "="]))][0]])

# A host that sends the placeholder itself: the texts are equal, and there is no value.
unread(reads, found) := [r |
	some p, read in reads
	not found[p]
	r := {"field": field(read), "found": text(read), "expected": concat("", ["a value of the kind ", read.kind])}
]

explain_CreateContainerRequest := array.concat([r | some r in create_reasons], [e |
	some c in nearest
	request := container_request(c, values(c.read, known_facts))
	e := {"container": c.name, "input": seen(request), "request": request, "secrets": secrets(c)}
])

# Variables whose values are not shown.
secrets(c) := object.get(c, "secrets", [])

nearest := candidates if count(candidates) > 0

nearest := policy_data.containers if count(candidates) == 0

create_reasons[r] {
	not data.pstate.sandbox
	r := {"text": "there is no sandbox yet"}
}

create_reasons[r] {
	data.pstate.destroyed
	r := {"text": "the sandbox is destroyed"}
}

create_reasons[r] {
	count(candidates) == 0
	r := {
		"field": "/OCI/Annotations/io.kubernetes.cri.container-name",
		"found": container_name,
		"expected": [c.name | some c in policy_data.containers],
		"text": "no container of this name is declared",
	}
}

create_reasons[r] {
	some c in candidates
	found := values(c.read, known_facts)
	request := container_request(c, found)
	seen(request) == request
	some r in unread(c.read, found)
}

create_reasons[r] {
	some c in candidates
	some v in incomplete(c)
	r := {
		"container": c.name,
		"field": sprintf("/OCI/Mounts/%v/source", [v.mount]),
		"found": sort([path | made_for(v)[path]]),
		"expected": [path | policy_data.trees[v.tree].entries[path]],
		"text": "the volume was not copied in whole before",
	}
}

create_reasons[r] {
	not is_new(input.container_id)
	r := {
		"field": "/container_id",
		"found": input.container_id,
		"expected": "64 hexadecimal digits, not used before",
	}
}

create_reasons[r] {
	policy_data.containers[i].name == container_name
	not is_free(i)
	r := {"container": container_name, "text": "the container was created already"}
}

create_reasons[r] {
	policy_data.containers[i].name == container_name
	missing := missing_before(i)
	count(missing) > 0
	r := {
		"container": container_name,
		"text": concat("", ["created before its turn: ", concat(", ", missing), " comes first"]),
	}
}

explain_ExecProcessRequest := array.concat([r | some r in exec_reasons], [e |
	c := data.pstate.containers[input.container_id]
	request := exec_request(c)
	e := {"container": c.name, "input": seen_exec(request), "request": request, "secrets": secrets(declared(c.name))}
	is_allowed_exec(c)
])

exec_reasons[r] {
	c := data.pstate.containers[input.container_id]
	not is_allowed_exec(c)
	r := {
		"container": c.name,
		"field": "/process/Args",
		"found": input.process.Args,
		"expected": array.concat(exec_commands(c), object.get(declared(c.name), "exec_patterns", [])),
		"text": "the owner allows only these commands",
	}
}

exec_reasons[r] {
	c := data.pstate.containers[input.container_id]
	not c.started
	r := {"container": c.name, "text": "the container is not started"}
}

exec_reasons[r] {
	c := data.pstate.containers[input.container_id]
	not is_new_exec(c)
	r := {"container": c.name, "field": "/exec_id", "found": input.exec_id, "expected": "a plain id, not used before"}
}

exec_reasons[r] {
	not is_complete
	r := {"text": incomplete_pod}
}

incomplete_pod := concat("", ["the owner wants the whole pod first: not created yet: ", concat(", ", not_created)])

exec_reasons[r] {
	some r in unknown_container
}

explain_ReleaseKeyRequest := [{"text": incomplete_pod} | not is_complete]

explain_GetDiagnosticDataRequest := array.concat(unknown_container, [{
	"field": "/log_type",
	"found": input.log_type,
	"expected": "the terminationMessagePath of a container whose message the owner lets the host read",
} | data.pstate.containers[input.container_id]])

unknown_container := [{"field": "/container_id", "found": input.container_id, "expected": "a created container"} |
	not data.pstate.containers[input.container_id]
]

unknown_process := [{"field": "/exec_id", "found": input.exec_id, "expected": "a process of the container"} |
	data.pstate.containers[input.container_id]
	not is_process
]

explain_StartContainerRequest := unknown_container

explain_RemoveContainerRequest := unknown_container

explain_StatsContainerRequest := unknown_container

explain_SignalProcessRequest := array.concat(array.concat(unknown_container, unknown_process), [
	{"field": "/signal", "found": input.signal, "expected": sort([signal | some signal in stop_signals])} |
	is_process
])

explain_WaitProcessRequest := array.concat(unknown_container, unknown_process)

explain_ReadStreamRequest := array.concat(
	[{"text": "the owner does not let the host read the containers' output"} | not policy_data.logs],
	array.concat(unknown_container, unknown_process),
)

explain_WriteStreamRequest := array.concat(unknown_container, no_stdin)

explain_CloseStdinRequest := array.concat(unknown_container, no_stdin)

no_stdin := [{"container": c.name, "text": "the container declares no stdin"} |
	c := data.pstate.containers[input.container_id]
	not declared(c.name).stdin
]

explain_CopyFileRequest := array.concat(late_reasons, array.concat(
	lacking_reasons,
	[r | count(late_reasons) + count(lacking_reasons) == 0; some r in early_reasons],
))

late_reasons := [{
	"field": "/path",
	"found": input.path,
	"expected": "the path of a volume that the container has, of which the owner leaves files to the host",
	"text": "the container has been created: its other files stay as they are",
} | copied.late; count(trees_here) < max([1, count(own_trees)])]

lacking_reasons := [{
	"field": "/symlink_target",
	"found": input.symlink_target,
	"expected": sort(lacking),
	"text": "the version is not whole: these parts of it were not copied in",
} | copied.late; count(lacking) > 0]

early_reasons := array.concat(volume_reasons, [{
	"field": "/path",
	"found": input.path,
	"expected": concat("", [shared_dir, "<id of a container not yet created>-<16 hex>-<", concat("|", file_names), ">"]),
	"text": "only these files: regular, not executable, owned by root, up to 1 MiB; and the parts of the pod's volumes",
} | count(volume_reasons) == 0])

file_names := array.concat(policy_data.files, [name | some t in policy_data.trees; some name in t.names])

# How the copy differs from the part of a volume that has its path.
volume_reasons := [{"request": object.union_n([input, expected_copy(e, t.gid), expected_data(e)])} |
	some t in policy_data.trees
	copied.name in t.names
	e := t.entries[copied.place]
]

expected_copy(e, gid) := object.union(without_contents(gid), {
	"file_type": "Directory",
	"file_mode": bits.or(input.file_mode - bits.and(input.file_mode, 2048), 365),
}) if e.folder

expected_copy(e, gid) := object.union(without_contents(gid), {"file_type": "Symlink", "symlink_target": target(e.link)}) if e.link

expected_copy(e, gid) := {
	"file_type": "Regular",
	"file_mode": e.mode,
	"dir_mode": plain_dir_mode,
	"uid": e.uid,
	"gid": gid,
	"offset": 0,
} if e.mode

without_contents(gid) := {"dir_mode": plain_dir_mode, "uid": 0, "gid": group(gid), "file_size": 0, "offset": 0}

plain_dir_mode := input.dir_mode - bits.and(input.dir_mode, 3602)

group(gid) := input.gid if input.gid in {0, gid}

group(gid) := gid if not input.gid in {0, gid}

target(link) := link if link != "$(volume-version)"

target(link) := "a folder named ..<date>_<time>.<number>" if {
	link == "$(volume-version)"
	not is_version(input.symlink_target)
}

target(link) := input.symlink_target if {
	link == "$(volume-version)"
	is_version(input.symlink_target)
}

explain_SetPolicyRequest := [{"text": "the policy is the one whose digest is in HOST_DATA"}]
