# A request is allowed when it equals the one that an honest containerd and Kata runtime send for this pod.
#
# policy_data, behind these rules, holds each such request whole. Where only the host knows a value the request has a
# placeholder, $(name), and "read" says where in the incoming request the value stands and of which kind it must be.
# A rule reads the values, puts them into the placeholders, and compares the whole: a field that no rule mentions is
# compared too. What is not allowed here is denied.
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default AllowRequestsFailingPolicy := false

default AddARPNeighborsRequest := false
default AddSwapPathRequest := false
default AddSwapRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default ExecProcessRequest := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemAgentCompactConfig := false
default MemAgentMemcgConfig := false
default MemHotplugByProbeRequest := false
default OnlineCPUMemRequest := false
default PauseContainerRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := false
default RemoveStaleVirtiofsShareMountsRequest := false
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default SignalProcessRequest := false
default StartContainerRequest := false
default StatsContainerRequest := false
default TtyWinResizeRequest := false
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default VolumeStatsRequest := false
default WaitProcessRequest := false
default WriteStreamRequest := false

# Tell nothing about the containers' memory or files.
default GetOOMEventRequest := true
default GuestDetailsRequest := true

# --- values that the host chooses

# The same everywhere in the pod: the first request that has one fixes it.
pod_facts := service_facts | {"$(sandbox-id)", "$(sandbox-name)", "$(sandbox-namespace)", "$(pod-uid)", "$(node-name)",
	"$(pod-ip)", "$(pod-ips)", "$(host-ip)", "$(host-ips)", "$(pod-index)"}

service_facts := {concat("", ["$(service-ip-", format_int(i, 10), ")"]) | policy_data.services[i]}

hexadecimal := "0123456789abcdef"

is_id(v) if {
	count(v) == 64
	trim(v, hexadecimal) == ""
}

# Kinds without structure: how long, and of which characters.
plain := {
	"id": {"least": 64, "most": 64, "of": hexadecimal},
	"file": {"least": 16, "most": 16, "of": hexadecimal},
}

bounded(kind, v) if {
	k := plain[kind]
	count(v) >= k.least
	count(v) <= k.most
	trim(v, k.of) == ""
}

bounded("pci", v) if {
	count(v) >= 2
	count(v) <= 64
	trim(v, "0123456789abcdef./") == ""
	not contains(v, "..")
	not contains(v, "//")
	not startswith(v, "/")
}

bounded("cgroups", v) if {
	count(v) <= 512
	trim(v, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._:/-") == ""
	not contains(v, "..")
	endswith(v, input.container_id)
}

bounded(kind, v) if regex.match(patterns[kind], v)

patterns := {
	"uid": `^[0-9a-z-]{1,64}$`,
	"index": `^(0|[1-9][0-9]{0,9})$`,
	"label": `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`,
	"subdomain": `^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`,
}

bounded("address", v) if is_address(v)

# One of each family, the second after a comma.
bounded("addresses", v) if {
	count(split(v, ",")) <= 2
	every address in split(v, ",") {
		is_address(address)
	}
}

bounded("name", v) if {
	count(v) <= 63
	regex.match(policy_data.name_pattern, v)
}

is_address(v) if {
	regex.match(`^(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}$`, v)
	not startswith(v, "0.")
}

is_address(v) if {
	contains(v, ":")
	regex.match(`^[0-9a-f:]{2,39}$`, v)
}

is_remote_address(v) if {
	is_address(v)
	not startswith(v, "127.")
	not v in {"::", "::1"}
}

# The texts of the request in which values stand.
texts := {
	"Annotations": input.OCI.Annotations,
	"CgroupsPath": {"": input.OCI.Linux.CgroupsPath},
	"Env": {split(entry, "=")[0]: entry | entry := input.OCI.Process.Env[_]},
	"Hostname": {"": input.OCI.Hostname},
	"Mounts": [m.source | m := input.OCI.Mounts[_]],
	"container_id": {"": input.container_id},
	"storages": [m.source | m := input.storages[_]],
}

sandbox_texts := {"hostname": {"": input.hostname}, "sandbox_id": {"": input.sandbox_id}}

value(r, all) := v if {
	t := all[r.of][r.at]
	v := substring(t, r.skip, (count(t) - r.skip) - r.tail)
	bounded(r.kind, v)
}

# What an earlier request fixed counts, whatever stands here.
values(reads, all, fixed) := object.union({r.p: v | some r in reads; not fixed[r.p]; v := value(r, all)}, fixed)

complete(reads, found) if {
	every r in reads {
		found[r.p]
	}
}

filled(request, found) := json.unmarshal(strings.replace_n(found, json.marshal(request)))

# --- sandbox

op(path, v) := {"op": "add", "path": concat("/", array.concat(["", "pstate"], path)), "value": v}

CreateSandboxRequest := {"allowed": true, "ops": ops} if {
	not data.pstate.sandbox
	found := values(policy_data.sandbox.read, sandbox_texts, {})
	complete(policy_data.sandbox.read, found)
	input == sandbox_request(found)
	ops := [
		op(["sandbox"], input),
		op(["facts"], {p: v | some p in pod_facts; v := found[p]}),
		op(["containers"], {}),
		op(["names"], {}),
		op(["gone"], {}),
		op(["copied"], {}),
	]
}

CreateSandboxRequest := {"allowed": true, "repeat": true} if data.pstate.sandbox == input

sandbox_request(found) := object.union(filled(policy_data.sandbox.request, found), {"dns": dns})

dns := policy_data.sandbox.request.dns if not dns_from_host

dns := input.dns if dns_from_host

dns_from_host if {
	policy_data.sandbox.dns_from_host
	count(input.dns) <= 32
	every line in input.dns {
		is_resolver_line(line)
	}
}

is_resolver_line(line) if {
	startswith(line, "nameserver ")
	is_address(substring(line, 11, -1))
}

is_resolver_line(line) if {
	count(line) <= 4096
	regex.match(`^search( [A-Za-z0-9_.-]+)+$`, line)
}

is_resolver_line(line) if {
	count(line) <= 1024
	regex.match(`^options( [a-z0-9-]+(:[0-9]+)?)+$`, line)
}

DestroySandboxRequest := {"allowed": true, "ops": [op(["destroyed"], true)]}

# --- containers

container_name := object.get(input.OCI.Annotations, "io.kubernetes.cri.container-name", "(sandbox)")

declared(name) := c if {
	some c in policy_data.containers
	c.name == name
}

container_request(c, found) := with_oom_score(c, with_env_order(filled(template(c), found)))

# The kubelet writes variables in no certain order, and each is there once: the order says nothing.
with_env_order(request) := request if not is_same_env(request)

with_env_order(request) := changed if {
	is_same_env(request)
	changed := object.union(request, {"OCI": {"Process": {"Env": input.OCI.Process.Env}}})
}

is_same_env(request) if sort(request.OCI.Process.Env) == sort(input.OCI.Process.Env)

# The sandbox container's request stands whole; what the others have in common is written once.
template(c) := c.request if c.role == "sandbox"

template(c) := object.union(policy_data.common, c.request) if c.role != "sandbox"

with_oom_score(c, request) := request if not in_oom_bounds(c)

with_oom_score(c, request) := changed if {
	in_oom_bounds(c)
	changed := object.union(request, {"OCI": {"Process": {"OOMScoreAdj": input.OCI.Process.OOMScoreAdj}}})
}

in_oom_bounds(c) if {
	c.oom_score_adj[0] <= input.OCI.Process.OOMScoreAdj
	input.OCI.Process.OOMScoreAdj <= c.oom_score_adj[1]
}

is_new(id) if {
	is_id(id)
	not data.pstate.containers[id]
	not data.pstate.gone[id]
}

created_before(c) if {
	c.role in {"sandbox", "main"}
	data.pstate.names[c.name]
}

created_before(c) if {
	c.role == "sidecar"
	data.pstate.names[c.name].started
}

created_before(c) if {
	c.role == "init"
	data.pstate.names[c.name].done
}

created_before(c) if {
	c.role == "init"
	succeeded(data.pstate.names[c.name].id)
}

# The guest itself saw the process end; a host that kills it makes another exit code.
succeeded(id) if data.guest.exits[id] == 0

# Every container declared before this one was created, every sidecar among them was started, and every init container
# has ended with success.
missing_before(i) := [c.name |
	c := policy_data.containers[j]
	j < i
	not created_before(c)
]

is_free(i) if not data.pstate.names[policy_data.containers[i].name]

is_free(i) if {
	c := policy_data.containers[i]
	c.restart
	data.pstate.gone[data.pstate.names[c.name].id]
	is_last_init(i)
}

is_last_init(i) if policy_data.containers[i].role != "init"

is_last_init(i) if count([j | c := policy_data.containers[j]; j > i; data.pstate.names[c.name]]) == 0

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	data.pstate.sandbox
	not data.pstate.destroyed
	is_new(input.container_id)
	c := policy_data.containers[i]
	c.name == container_name
	is_free(i)
	count(missing_before(i)) == 0
	found := values(c.read, texts, data.pstate.facts)
	complete(c.read, found)
	input == container_request(c, found)
	count(incomplete(c)) == 0
	known := object.union(data.pstate.facts, {p: v | some p in pod_facts; v := found[p]})
	is_name_of_index(known)
	ops := [
		op(["facts"], known),
		op(["containers", input.container_id], {"name": c.name, "started": false, "execs": {}, "request": input}),
		op(["names", c.name], {"id": input.container_id, "started": false}),
	]
}

# The number in the name of an Indexed Job's pod is the one in its host name and environment.
is_name_of_index(facts) if not facts["$(sandbox-name)"]

is_name_of_index(facts) if not facts["$(pod-index)"]

is_name_of_index(facts) if {
	regex.match(concat("", ["-", facts["$(pod-index)"], "-[a-z0-9]{5}$"]), facts["$(sandbox-name)"])
}

CreateContainerRequest := {"allowed": true, "repeat": true} if {
	not data.pstate.destroyed
	data.pstate.containers[input.container_id].request == input
}

StartContainerRequest := {"allowed": true, "ops": ops} if {
	c := data.pstate.containers[input.container_id]
	not c.started
	ops := [op(["containers", input.container_id, "started"], true), op(["names", c.name, "started"], true)]
}

StartContainerRequest := {"allowed": true, "repeat": true} if data.pstate.containers[input.container_id].started

RemoveContainerRequest := {"allowed": true, "ops": ops} if {
	c := data.pstate.containers[input.container_id]
	done := [op(["names", c.name, "done"], true) |
		succeeded(input.container_id)
		data.pstate.names[c.name].id == input.container_id
	]
	ops := array.concat(done, [
		{"op": "remove", "path": concat("/", ["/pstate/containers", input.container_id])},
		op(["gone", input.container_id], c.name),
	])
}

# --- processes

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

is_new_exec(c) if {
	regex.match(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`, input.exec_id)
	input.exec_id != input.container_id
	not c.execs[input.exec_id]
}

ExecProcessRequest := {"allowed": true, "ops": [op(["containers", input.container_id, "execs", input.exec_id], true)]} if {
	c := data.pstate.containers[input.container_id]
	c.started
	is_new_exec(c)
	input.process.Args in exec_commands(c)
	input == exec_request(c)
}

SignalProcessRequest if {
	is_process
	input.signal <= 64
}

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
	declared(data.pstate.containers[input.container_id].name).stdin
}

WriteStreamRequest if is_stdin

CloseStdinRequest if is_stdin

# --- files

shared_dir := "/run/kata-containers/shared/containers/"

# <shared_dir><container id>-<16 hex>-<name>/<rest>: the id is at 39, the 16 digits at 104, the name at 121. The copy is for
# a container that is not created yet. Its place is the rest with the version's folder under its common name.
copied := c if {
	data.pstate.sandbox
	id := substring(input.path, 39, 64)
	is_new(id)
	file := substring(input.path, 104, 16)
	bounded("file", file)
	parts := split(substring(input.path, 121, -1), "/")
	every part in parts {
		is_plain_part(part)
	}
	at := concat("-", [id, file, parts[0]])
	rest := array.slice(parts, 1, count(parts))
	input.path == concat("/", array.concat([concat("", [shared_dir, at])], rest))
	c := {"at": at, "name": parts[0], "rest": rest, "path": concat("/", rest), "place": place(rest)}
}

# No path has the form of a placeholder.
is_plain_part(part) if {
	not part in {"", ".", ".."}
	not contains(part, "$(")
}

# The kubelet's name for a version of a volume's files.
is_version(part) if regex.match(`^\.\.[0-9]{4}(_[0-9]{2}){5}\.[0-9]{1,19}$`, part)

place(rest) := concat("/", array.concat(["$(volume-version)"], array.slice(rest, 1, count(rest)))) if is_version(rest[0])

place(rest) := concat("/", rest) if not is_version(rest[0])

# Files whose contents are the host's to say, never in the place of a volume's.
CopyFileRequest if {
	input.file_type == "Regular"
	copied.name in policy_data.files
	copied.path == ""
	not data.pstate.copied[copied.at]
	count(fitting) == 0
	is_file_mode(input.file_mode)
	is_dir_mode(input.dir_mode)
	input.uid == 0
	input.gid == 0
	input.symlink_target == null
	input.file_size >= 0
	input.file_size <= 1048576
	input.offset >= 0
	input.offset <= input.file_size
}

# Of 0o7777 no more than rw-rw-rw-: nothing that could be executed.
is_file_mode(mode) if bits.and(mode, 3657) == 0

# Of 0o7777 no more than rwxr-xr-x.
is_dir_mode(mode) if bits.and(mode, 3602) == 0

# --- volumes of files

# A part of a volume that some container declares under this name. What was copied is remembered, and a container is created
# only when it is the whole of its own volumes.
CopyFileRequest := {"allowed": true, "ops": ops} if {
	is_dir_mode(input.dir_mode)
	count(fitting) > 0
	ops := array.concat(first_copy, array.concat(
		[op(["copied", token(copied.at), token(copied.path)], [remembered(e) | some e in fitting])],
		[op(["facts", e.is], input.data_text) | some e in fitting; e.is],
	))
}

first_copy := [op(["copied", token(copied.at)], {}) | not data.pstate.copied[copied.at]]

# A name in a JSON pointer (RFC 6901).
token(name) := replace(replace(name, "~", "~0"), "/", "~1")

remembered(e) := {"link": input.symlink_target} if e.link

remembered(e) := e if not e.link

fitting := [e |
	some t in policy_data.trees
	copied.name in t.names
	e := entry(t)
	fits(e, t.gid)
]

entry(t) := t.entries[copied.place]

entry(t) := unpinned(t) if not t.entries[copied.place]

# What the host may add where the owner leaves the files to it: links to names in the version's folder, and what is in that.
unpinned(t) := {"link": concat("", ["..data/", copied.rest[0]])} if {
	t.unpinned
	input.file_type == "Symlink"
	count(copied.rest) == 1
	is_free_name(copied.rest[0])
}

unpinned(t) := {"folder": true} if {
	t.unpinned
	input.file_type == "Directory"
	is_free_place
}

unpinned(t) := {"mode": t.unpinned.mode, "uid": 0, "free": "unpinned"} if {
	input.file_type == "Regular"
	is_free_place
}

is_free_place if {
	is_version(copied.rest[0])
	count(copied.rest) in {2, 3, 4, 5, 6, 7, 8}
	every name in array.slice(copied.rest, 1, count(copied.rest)) {
		is_free_name(name)
	}
}

is_free_name(name) if {
	regex.match(`^[A-Za-z0-9._-]{1,253}$`, name)
	not startswith(name, "..")
}

fits(e, gid) if {
	e.folder
	input.file_type == "Directory"
	bits.and(input.file_mode, 2048) == 0
	is_empty(gid)
}

fits(e, gid) if {
	input.file_type == "Symlink"
	leads_to(e.link)
	is_empty(gid)
}

# Its owner is root, and no contents come with it.
is_empty(gid) if {
	input.uid == 0
	input.gid in {0, gid}
	input.file_size == 0
	input.offset == 0
}

leads_to(link) if {
	link == "$(volume-version)"
	is_version(input.symlink_target)
}

leads_to(link) if {
	link != "$(volume-version)"
	input.symlink_target == link
}

# The whole file in one request: a digest of a part would say nothing.
fits(e, gid) if {
	input.file_type == "Regular"
	input.file_mode == e.mode
	input.uid == e.uid
	input.gid == gid
	input.offset == 0
	input.file_size == input.data_size
	holds(e)
}

holds(e) if input.data_sha256 == e.sha256

holds(e) if {
	bounded(e.kind, input.data_text)
	object.get(data.pstate.facts, e.is, input.data_text) == input.data_text
}

holds(e) if {
	e.free
	input.data_size <= 1048576
}

incomplete(c) := [v | some v in c.volumes; not is_whole(v)]

made_for(v) := data.pstate.copied[substring(input.OCI.Mounts[v.mount].source, count(shared_dir), -1)]

is_whole(v) if {
	t := policy_data.trees[v.tree]
	made := made_for(v)
	wanted := {replace(path, "$(volume-version)", version(made)): e | some path, e in t.entries}
	count([path | some path, e in wanted; not is_made(e, version(made), made[path])]) == 0
	has_no_more(t, wanted, made)
}

version(made) := made["..data"][0].link

version(made) := "" if not made["..data"]

is_made(e, v, entries) if object.union(e, {"link": replace(e.link, "$(volume-version)", v)}) in entries

is_made(e, _, entries) if e in entries

has_no_more(t, _, _) if t.unpinned

has_no_more(t, wanted, made) if {
	not t.unpinned
	count(wanted) == count(made)
}

# --- network

is_device(name) if regex.match(`^eth[0-9]{1,3}$`, name)

is_device_path(v) if v == ""

is_device_path(v) if bounded("pci", v)

is_prefix(v) if regex.match(`^(12[0-8]|1[01][0-9]|[1-9]?[0-9])$`, v)

UpdateInterfaceRequest if {
	i := input.interface
	is_device(i.device)
	is_device(i.name)
	every address in i.IPAddresses {
		address.family in {0, 1}
		is_remote_address(address.address)
		is_prefix(address.mask)
	}
	count(i.IPAddresses) <= 16
	i.mtu >= 576
	i.mtu <= 65535
	regex.match(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`, lower(i.hwAddr))
	i.hwAddr != "00:00:00:00:00:00"
	is_device_path(i.devicePath)
	i.type_ in {"", "veth", "device"}
	i.raw_flags in {0, 128}
}

is_network(v) if v in {"", "default", "0.0.0.0/0", "::/0"}

is_network(v) if is_remote_address(v)

is_network(v) if {
	[address, prefix] := split(v, "/")
	is_remote_address(address)
	is_prefix(prefix)
}

is_optional_address(v) if v == ""

is_optional_address(v) if is_remote_address(v)

UpdateRoutesRequest if {
	count(input.routes.Routes) <= 64
	every r in input.routes.Routes {
		is_device(r.device)
		is_network(r.dest)
		is_optional_address(r.gateway)
		is_optional_address(r.source)
		r.family in {0, 1}
		r.scope in {0, 200, 253}
		r.flags in {0, 4}
		r.mtu <= 65535
	}
}

AddARPNeighborsRequest if {
	count(input.neighbors.ARPNeighbors) <= 64
	every n in input.neighbors.ARPNeighbors {
		is_device(n.device)
		is_remote_address(n.toIPAddress.address)
		n.toIPAddress.family in {0, 1}
		n.toIPAddress.mask == ""
		regex.match(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`, lower(n.lladdr))
		n.state in {2, 128}
		n.flags in {0, 8, 128, 136}
	}
}

# --- why not: evaluated after a denial, decides nothing

explain_CreateSandboxRequest := array.concat(
	[{"text": "the sandbox is created already"} | data.pstate.sandbox],
	[r |
		not data.pstate.sandbox
		found := values(policy_data.sandbox.read, sandbox_texts, {})
		request := sandbox_request(found)
		some r in array.concat([{"request": request}], [u | request == input; some u in unread(policy_data.sandbox.read, sandbox_texts, found)])
	],
)

facts := object.get(data.pstate, "facts", {})

candidates := [c | c := declared(container_name)]

field(r) := concat("", ["/", r.of]) if r.of in {"container_id", "sandbox_id", "hostname"}

field(r) := "/OCI/Linux/CgroupsPath" if r.of == "CgroupsPath"

field(r) := "/OCI/Hostname" if r.of == "Hostname"

field(r) := sprintf("/OCI/Process/Env/%v", [[i | startswith(input.OCI.Process.Env[i], concat("", [r.at, "="]))][0]]) if r.of == "Env"

field(r) := sprintf("/OCI/Annotations/%v", [r.at]) if r.of == "Annotations"

field(r) := sprintf("/OCI/Mounts/%v/source", [r.at]) if r.of == "Mounts"

field(r) := sprintf("/storages/%v/source", [r.at]) if r.of == "storages"

# A host that sends the placeholder itself: the texts are equal, and there is no value.
unread(reads, all, found) := [r |
	some read in reads
	not found[read.p]
	r := {"field": field(read), "found": all[read.of][read.at], "expected": concat("", ["a value of the kind ", read.kind])}
]

explain_CreateContainerRequest := array.concat([r | some r in create_reasons], [e |
	some c in nearest
	e := {"container": c.name, "request": container_request(c, values(c.read, texts, facts)), "secrets": secrets(c)}
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
	found := values(c.read, texts, facts)
	container_request(c, found) == input
	some r in unread(c.read, texts, found)
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
	e := {"container": c.name, "request": exec_request(c), "secrets": secrets(declared(c.name))}
	input.process.Args in exec_commands(c)
])

exec_reasons[r] {
	c := data.pstate.containers[input.container_id]
	not input.process.Args in exec_commands(c)
	r := {
		"container": c.name,
		"field": "/process/Args",
		"found": input.process.Args,
		"expected": exec_commands(c),
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
	some r in unknown_container
}

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

explain_SignalProcessRequest := array.concat(unknown_container, unknown_process)

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

explain_CopyFileRequest := array.concat(volume_reasons, [{
	"field": "/path",
	"found": input.path,
	"expected": concat("", [shared_dir, "<id of a container not yet created>-<16 hex>-<", concat("|", file_names), ">"]),
	"text": "only these files: regular, not executable, owned by root, up to 1 MiB; and the parts of the pod's volumes",
} | count(volume_reasons) == 0])

file_names := array.concat(policy_data.files, [name | some t in policy_data.trees; some name in t.names])

# How the copy differs from the part of a volume that has its path.
volume_reasons := [{"request": object.union(input, expected_copy(e, t.gid))} |
	some t in policy_data.trees
	copied.name in t.names
	e := t.entries[copied.place]
]

expected_copy(e, gid) := object.union(without_contents(gid), {
	"file_type": "Directory",
	"file_mode": input.file_mode - bits.and(input.file_mode, 2048),
}) if e.folder

expected_copy(e, gid) := object.union(without_contents(gid), {"file_type": "Symlink", "symlink_target": target(e.link)}) if e.link

expected_copy(e, gid) := {
	"file_type": "Regular",
	"file_mode": e.mode,
	"dir_mode": dir_mode,
	"uid": e.uid,
	"gid": gid,
	"offset": 0,
	"file_size": input.data_size,
	"data_sha256": object.get(e, "sha256", input.data_sha256),
	"data_text": contents(e),
} if e.mode

without_contents(gid) := {"dir_mode": dir_mode, "uid": 0, "gid": group(gid), "file_size": 0, "offset": 0}

dir_mode := input.dir_mode - bits.and(input.dir_mode, 3602)

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

contents(e) := input.data_text if not e.is

contents(e) := concat("", ["a value of the kind ", e.kind]) if e.is

explain_SetPolicyRequest := [{"text": "the policy is the one whose digest is in HOST_DATA"}]
