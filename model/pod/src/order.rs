//! In which order an honest kubelet brings the containers up.

use serde::{Deserialize, Serialize};

use crate::{Pod, Role};

/// One step; the number is the index into [`Pod::containers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Create the container.
    Create(usize),
    /// Start it.
    Start(usize),
    /// Wait for its end, which must be exit code 0.
    WaitForSuccess(usize),
}

/// Init containers one after another to their end, sidecars in between kept running, then the
/// others in the manifest's order.
pub fn steps(pod: &Pod) -> Vec<Step> {
    let mut steps = Vec::new();
    let early = |role| role != Role::Main;
    let in_order = (0..).zip(&pod.containers);
    let (first, then): (Vec<_>, Vec<_>) =
        in_order.partition(|(_, container)| early(container.role));
    for (index, container) in first.into_iter().chain(then) {
        steps.extend([Step::Create(index), Step::Start(index)]);
        if container.role == Role::Init {
            steps.push(Step::WaitForSuccess(index));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, pod};

    #[test]
    fn init_containers_end_before_the_next_one_is_created() {
        let roles = [Role::Init, Role::Sidecar, Role::Main, Role::Main];
        let containers = roles.map(|role| {
            let mut container = container("app");
            container.role = role;
            container
        });
        use Step::{Create, Start, WaitForSuccess};
        let expect = [
            Create(0),
            Start(0),
            WaitForSuccess(0),
            Create(1),
            Start(1),
            Create(2),
            Start(2),
            Create(3),
            Start(3),
        ];
        assert_eq!(steps(&pod(containers.into())), expect);
    }
}
