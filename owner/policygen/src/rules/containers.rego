# Containers: each equals its request in the policy, in its turn, once.

container_name := object.get(input.OCI.Annotations, "io.kubernetes.cri.container-name", "(sandbox)")

declared(name) := chosen(policy_data.containers[policy_data.places[name]])

chosen(c) := c if not c.variants

# What has no placeholder stands apart, so that only the rest is made anew for each request.
container_request(c, found) := with_image_name(with_oom_score(c, with_env_order(object.union(fixed_part(c), filled(varying_part(c), found)))))

# A node that has the image under a tag as well may say that: the layers are the same, and the guest does not look at it.
with_image_name(request) := request if not same_image(image_name(request), image_name(input))

with_image_name(request) := changed if {
	same_image(image_name(request), image_name(input))
	changed := object.union(request, {"OCI": {"Annotations": {"io.kubernetes.cri.image-name": image_name(input)}}})
}

image_name(request) := request.OCI.Annotations["io.kubernetes.cri.image-name"]

same_image(own, other) if {
	own != other
	contains(own, "@sha256:")
	repository(own) == repository(other)
}

repository(name) := regex.replace(name, `(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`, "")

# The kubelet writes variables in no certain order, and each is there once: the order says nothing.
with_env_order(request) := request if request.OCI.Process.Env == input.OCI.Process.Env

with_env_order(request) := ordered_as(request, sort(request.OCI.Process.Env) == sort(input.OCI.Process.Env)) if {
	request.OCI.Process.Env != input.OCI.Process.Env
}

ordered_as(request, false) := request

ordered_as(request, true) := object.union(request, {"OCI": {"Process": {"Env": input.OCI.Process.Env}}})

# The sandbox container's request stands whole; what the others have in common is written once.
fixed_part(c) := c.request if c.role == "sandbox"

fixed_part(c) := object.union(policy_data.common, c.request) if c.role != "sandbox"

varying_part(c) := c.fill if c.role == "sandbox"

varying_part(c) := object.union(policy_data.common_fill, c.fill) if c.role != "sandbox"

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

# Every container declared before this one was created, every sidecar among them was started, and every init container
# has ended with success.
missing_before(i) := [c.name |
	c := policy_data.containers[j]
	j < i
	not created_before(c)
]

# The containers before this one that are not as they should be are none: those that only had to be created were, since
# each was in its turn.
is_turn(i) if {
	i <= data.pstate.turn
	count([j | some j in policy_data.waits; j < i; not created_before(policy_data.containers[j])]) == 0
}

next_turn(i) := [op(["turn"], i + 1) | i == data.pstate.turn]

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
	i := policy_data.places[container_name]
	c := declared(container_name)
	is_free(i)
	is_turn(i)
	found := values(c.read, data.pstate.facts)
	complete(c.read, found)
	request := container_request(c, found)
	seen(request) == request
	count(incomplete(c)) == 0
	known := facts_of(c.read, found, data.pstate.facts)
	is_name_of_index(known)
	ops := array.concat(next_turn(i), [
		op(["facts"], known),
		op(["containers", input.container_id], {"name": c.name, "started": false, "execs": {}, "request": input, "volumes": object.get(c, "volumes", [])}),
		op(["names", c.name], {"id": input.container_id, "started": false}),
	])
}

# The number in the name of an Indexed Job's pod is the one in its host name and environment.
is_name_of_index(facts) if not facts["$(sandbox-name)"]

is_name_of_index(facts) if not facts["$(pod-index)"]

is_name_of_index(facts) if {
	regex.match(concat("", ["-", facts["$(pod-index)"], "-[a-z0-9]{5}$"]), facts["$(sandbox-name)"])
}

StartContainerRequest := {"allowed": true, "ops": ops} if {
	c := data.pstate.containers[input.container_id]
	not c.started
	ops := [op(["containers", input.container_id, "started"], true), op(["names", c.name, "started"], true)]
}

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
