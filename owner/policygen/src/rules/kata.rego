# What a stock Kata agent tells the rules, and what differs between nodes that it runs on without a difference for the pod.

# The request as the policy writes it. What is not named here is compared as it is.
seen(request) := object.union(object.remove(input, ["OCI", "storages"]), {
	"OCI": seen_spec(request.OCI),
	"storages": [seen_storage(s) | some s in input.storages],
})

# The policy's value where the node's is one of those that mean the same.
either(found, same, wanted) := wanted if found in same

either(found, same, _) := found if not found in same

versions := {"1.0.2", "1.0.2-dev", "1.1.0", "1.2.0", "1.2.1", "1.3.0"}

profiles := {"", "cri-containerd.apparmor.d"}

seen_spec(spec) := object.union(
	object.remove(input.OCI, ["Annotations", "Linux", "Mounts"]),
	{
		"Annotations": {k: v | some k, v in input.OCI.Annotations; not is_of_node(spec, k)},
		"Hostname": either(input.OCI.Hostname, {"", data.pstate.sandbox.hostname}, spec.Hostname),
		"Linux": seen_linux(spec.Linux),
		"Mounts": [seen_mount(m) | some m in input.OCI.Mounts],
		"Process": {
			"ApparmorProfile": either(input.OCI.Process.ApparmorProfile, profiles, spec.Process.ApparmorProfile),
			"User": {"AdditionalGids": sort(input.OCI.Process.User.AdditionalGids)},
		},
		"Version": either(input.OCI.Version, versions, spec.Version),
	},
)

# Annotations that only the host's runtime reads. Those that the policy has are compared.
is_of_node(spec, key) if {
	not spec.Annotations[key]
	key in runtime_annotations
}

is_of_node(spec, key) if {
	not spec.Annotations[key]
	startswith(key, "io.katacontainers.config.hypervisor.")
}

runtime_annotations := {
	"io.katacontainers.config.agent.policy",
	"io.kubernetes.cri.podsandbox.image-name",
	"io.kubernetes.cri.sandbox-cpu-period",
	"io.kubernetes.cri.sandbox-cpu-quota",
	"io.kubernetes.cri.sandbox-cpu-shares",
	"io.kubernetes.cri.sandbox-log-directory",
	"io.kubernetes.cri.sandbox-memory",
	"nerdctl/network-namespace",
}

# CPU, memory and huge pages are the host's to give. Which paths are hidden beside those of the policy, too.
seen_linux(linux) := object.union(
	object.remove(input.OCI.Linux, ["MaskedPaths", "Namespaces", "ReadonlyPaths", "Resources", "Sysctl"]),
	{
		"MaskedPaths": at_least(linux.MaskedPaths, input.OCI.Linux.MaskedPaths, input.OCI.Linux.MaskedPaths),
		"Namespaces": [n | some n in input.OCI.Linux.Namespaces; not n in own_namespaces],
		"ReadonlyPaths": at_least(
			linux.ReadonlyPaths,
			array.concat(input.OCI.Linux.ReadonlyPaths, input.OCI.Linux.MaskedPaths),
			input.OCI.Linux.ReadonlyPaths,
		),
		"Resources": object.remove(input.OCI.Linux.Resources, ["CPU", "HugepageLimits", "Memory"]),
		"Sysctl": {k: v | some k, v in input.OCI.Linux.Sysctl; not is_of_containerd(linux, k, v)},
	},
)

at_least(wanted, found, listed) := wanted if is_at_least(wanted, found, listed)

at_least(wanted, found, listed) := listed if not is_at_least(wanted, found, listed)

# Further ones of the kernel only: hiding or freezing a file of the image takes away what the workload relies on.
is_at_least(wanted, found, listed) if {
	every path in wanted {
		path in found
	}
	every path in listed {
		is_hideable(wanted, path)
	}
}

is_hideable(wanted, path) if path in wanted

is_hideable(_, path) if {
	regex.match(`^/(proc|sys)/`, path)
	not contains(path, "..")
}

# New ones without a path: the agent makes a process namespace by sandbox_pidns, and a cgroup namespace hides only.
own_namespaces := {{"Path": "", "Type": "cgroup"}, {"Path": "", "Type": "pid"}}

# containerd's enable_unprivileged_ports and enable_unprivileged_icmp.
unprivileged := {
	"net.ipv4.ip_unprivileged_port_start": "0",
	"net.ipv4.ping_group_range": "0 2147483647",
}

is_of_containerd(linux, k, v) if {
	not linux.Sysctl[k]
	unprivileged[k] == v
}

# The order of mount options, and flags that take away from the resolver's file.
seen_mount(m) := object.union(m, {"options": sort([o | some o in m.options; not is_spare(m, o)])})

is_spare(m, o) if {
	m.destination == "/etc/resolv.conf"
	o in {"nodev", "noexec", "nosuid", "rprivate"}
}

# Total, so that no storage of the request is left out of the comparison.
seen_storage(s) := object.union(s, {"driver_options": seen_options(s)})

seen_options(s) := [] if is_pull(s)

seen_options(s) := s.driver_options if not is_pull(s)

# The agent takes its own pause program instead of the image when the metadata says so.
is_pull(s) if {
	s.driver == "image_guest_pull"
	count(s.driver_options) == 1
	startswith(s.driver_options[0], "image_guest_pull=")
	pull := json.unmarshal(substring(s.driver_options[0], 17, -1))
	object.keys(pull) == {"metadata"}
	kind := input.OCI.Annotations["io.kubernetes.cri.container-type"]
	object.get(pull.metadata, "io.kubernetes.cri.container-type", "container") == kind
	object.get(pull.metadata, "io.kubernetes.cri-o.ContainerType", kind) == kind
}

# The runtime sends these parts of an exec's process only.
seen_exec(request) := object.union(input, {"process": {
	"ApparmorProfile": either(input.process.ApparmorProfile, profiles, request.process.ApparmorProfile),
	"Capabilities": either(input.process.Capabilities, no_capabilities, request.process.Capabilities),
	"OOMScoreAdj": either(input.process.OOMScoreAdj, {0}, request.process.OOMScoreAdj),
}})

no_capabilities := {null, {"Ambient": [], "Bounding": [], "Effective": [], "Inheritable": [], "Permitted": []}}

# That it has ended is the host's word; that it was started is not.
succeeded(id) if data.pstate.containers[id].started

# What is in a file this agent does not tell.
holds(e) if {
	e.free
	input.file_size >= 0
	input.file_size <= 1048576
	input.offset >= 0
	input.offset <= input.file_size
}

expected_data(_) := {"file_size": input.file_size, "offset": input.offset}
