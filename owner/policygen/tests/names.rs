//! What a pod may be called: names of an honest cluster are allowed, the nearest others are not.

mod support;

use ah_pod::{EnvVar, HostFact, NamePiece, Pod, PodName, Text};
use support::{Case, pod};

fn named(name: PodName) -> Pod {
    let index = EnvVar { name: "INDEX".to_owned(), value: Text::host(HostFact::PodIndex) };
    let mut pod = pod();
    if matches!(name, PodName::Ordinal { .. } | PodName::Indexed { .. }) {
        pod.containers[1].env.push(index);
    }
    pod.hostname = None;
    pod.name = name;
    pod
}

/// Whether the pod may live under this name and number.
fn is_allowed(of: &Pod, name: &str, index: &str) -> bool {
    let mut case = Case::new(of.clone());
    case.host.pod_name = name.to_owned();
    case.host.pod_index = index.to_owned();
    let requests = ah_policygen::honest_requests(&case.pod, &case.host).unwrap();
    requests.into_iter().all(|request| {
        let ended = ah_policygen::ends(&request).map(str::to_owned);
        let committed = match case.decide(request) {
            Ok(permit) => case.state.commit(permit.into_parts().1).is_ok(),
            Err(_) => false,
        };
        if let Some(id) = ended {
            case.state.note_exit(&id, 0);
        }
        committed
    })
}

fn check(of: &Pod, fine: &[(&str, &str)], bad: &[(&str, &str)]) {
    for (name, index) in fine {
        assert!(is_allowed(of, name, index), "{name} {index}");
    }
    for (name, index) in bad {
        assert!(!is_allowed(of, name, index), "{name} {index}");
    }
}

#[test]
fn attack_pod_under_a_name_that_its_controller_never_gives() {
    let base =
        vec![NamePiece::Text("shop-".into()), NamePiece::TemplateHash, NamePiece::Text("-".into())];
    check(
        &named(PodName::Suffixed { base }),
        &[("shop-7c5ddbdf54-x2vwz", "0")],
        &[("shop-x2vwz", "0"), ("shopx-7c5ddbdf54-x2vwz", "0"), ("shop-7c5ddbdf54-x2vwz-x", "0")],
    );
}

#[test]
fn attack_number_of_a_pod_that_is_no_number() {
    check(
        &named(PodName::Ordinal { set: "shop".into() }),
        &[("", "0"), ("", "17")],
        &[("", ""), ("", "01"), ("", "-1"), ("", "1.evil"), ("", "12345678901"), ("", "1\n")],
    );
}

#[test]
fn attack_index_that_is_not_the_names() {
    check(
        &named(PodName::Indexed { job: "sum-7".into(), completions: 20 }),
        &[("sum-7-3-x2vwz", "3"), ("sum-7-19-x2vwz", "19")],
        &[
            ("sum-7-3-x2vwz", "4"),
            ("sum-7-3-x2vwz", "7"),
            ("sum-7-19-x2vwz", "9"),
            ("sum-7-x2vwz", "7"),
        ],
    );
}
