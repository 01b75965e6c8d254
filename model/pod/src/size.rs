//! What a pod's VM is sized by.

use crate::{Pod, Resources, Role};

/// What the pod's containers may need at the same time: limits, and requests where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Memory of the containers that say it.
    pub memory_bytes: u64,
    /// Whether a container has neither limit nor request for memory.
    pub memory_is_open: bool,
}

impl Size {
    /// The size of the pod's VM without what the guest needs itself.
    pub fn of(pod: &Pod) -> Self {
        let most = |of: fn(&Resources) -> Option<u64>| {
            let each = pod.containers.iter();
            at_once(each.map(|container| (container.role, of(&container.resources).unwrap_or(0))))
        };
        Self {
            cpu_milli: most(cpu),
            memory_bytes: most(memory),
            memory_is_open: pod.containers.iter().any(|c| memory(&c.resources).is_none()),
        }
    }
}

fn cpu(resources: &Resources) -> Option<u64> {
    positive(resources.cpu_limit_milli).or(positive(resources.cpu_request_milli))
}

fn memory(resources: &Resources) -> Option<u64> {
    positive(resources.memory_limit_bytes).or(positive(resources.memory_request_bytes))
}

fn positive(value: Option<u64>) -> Option<u64> {
    value.filter(|value| *value > 0)
}

/// The most of something that containers have at the same time, given in the order in which they start (Kubernetes, `PodLimits`): main containers and
/// sidecars together, or an init container with the sidecars before it, where that is more.
pub fn at_once(containers: impl IntoIterator<Item = (Role, u64)>) -> u64 {
    let (mut main, mut sidecars, mut most) = (0_u64, 0_u64, 0_u64);
    for (role, amount) in containers {
        match role {
            Role::Main => main = main.saturating_add(amount),
            Role::Sidecar => sidecars = sidecars.saturating_add(amount),
            Role::Init => most = most.max(sidecars.saturating_add(amount)),
        }
    }
    main.saturating_add(sidecars).max(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, pod};

    #[test]
    fn requests_count_where_there_is_no_limit() {
        let with = |cpu: (u64, u64), memory: (u64, u64)| {
            let mut one = container("app");
            one.resources = Resources {
                cpu_request_milli: Some(cpu.0),
                cpu_limit_milli: Some(cpu.1),
                memory_request_bytes: Some(memory.0),
                memory_limit_bytes: Some(memory.1),
                storage_limit_bytes: None,
            };
            one
        };
        let check = |containers, cpu_milli, memory_bytes, memory_is_open| {
            let expect = Size { cpu_milli, memory_bytes, memory_is_open };
            assert_eq!(Size::of(&pod(containers)), expect);
        };
        check(vec![], 0, 0, false);
        check(vec![container("app")], 0, 0, true);
        check(vec![with((1500, 0), (7, 0)), with((1, 500), (1, 3))], 2000, 10, false);
        check(vec![with((0, 0), (0, 0)), with((0, 500), (0, 3))], 500, 3, true);
    }

    #[test]
    fn sidecars_are_added_to_what_runs_beside_them() {
        use Role::{Init, Main, Sidecar};
        let check = |containers: &[(Role, u64)], expect| {
            assert_eq!(at_once(containers.iter().copied()), expect, "{containers:?}");
        };
        check(&[(Init, 5), (Init, 7), (Main, 2), (Main, 3)], 7);
        check(&[(Init, 5), (Sidecar, 4), (Main, 2)], 6);
        check(&[(Sidecar, 4), (Init, 5), (Main, 2)], 9);
        check(&[(Main, u64::MAX), (Sidecar, 1)], u64::MAX);
    }
}
