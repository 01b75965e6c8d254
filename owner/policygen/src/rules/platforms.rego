# Images made for several platforms: a container's request is the one whose layers the host has.

chosen(c) := c if {
	c.variants
	count(of_other_platforms(c)) == 0
}

chosen(c) := object.union(object.remove(c, ["read", "request", "fill", "volumes"]), of_other_platforms(c)[0]) if {
	count(of_other_platforms(c)) > 0
}

of_other_platforms(c) := [v |
	some v in c.variants
	disks(object.union(policy_data.common_fill, v.fill)) == disks(input)
]

disks(request) := [storage.options | some storage in request.storages]
