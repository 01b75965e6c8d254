//! Sealed values in a pod: where one would not be opened, or be opened for somebody else, there is no policy.

mod support;

use ah_pod::{Bound, EnvVar, Pod};
use ah_policygen::{Options, generate};
use ah_release_api::{Secret, seal};
use support::pod;

const OTHER_FORM: &str = "sealed.fakejwsheader.eyJ2ZXJzaW9uIjoiMC4xLjAifQ.fakesignature";

fn sealed(name: &str) -> String {
    let key = Secret::new(vec![7; 32]).unwrap();
    let place = format!("env:{name}").parse().unwrap();
    seal(&key, &"demo/db".parse().unwrap(), &place, [2; 12], b"sesame").unwrap()
}

/// A pod whose container `web` has a variable more.
fn with_variable(name: &str, value: &str) -> Pod {
    let mut pod = pod();
    pod.containers[1].env.push(EnvVar { name: name.to_owned(), value: value.into() });
    pod
}

fn made(pod: &Pod) -> Result<(), String> {
    generate(pod, &Options::default()).map(drop).map_err(|e| e.to_string())
}

#[track_caller]
fn refused(pod: &Pod, words: &str) {
    let error = made(pod).unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[test]
fn attack_sealed_value_of_another_form_inside_another_text() {
    made(&with_variable("PW", &sealed("PW"))).unwrap();
    made(&with_variable("PW", "x=sealed.orders")).unwrap();
    let inside = "stands inside another text";
    refused(&with_variable("PW", &format!("x{}", sealed("PW"))), inside);
    refused(&with_variable("PW", &format!("x{OTHER_FORM}")), inside);
    refused(&with_variable("PW", &format!("sealed.{OTHER_FORM}")), inside);
    refused(&with_variable("PW", OTHER_FORM), "is in the form of another project");
    for text in [sealed("PW"), OTHER_FORM.to_owned()] {
        let mut pod = pod();
        pod.containers[1].args.push(format!("--pw={text}").as_str().into());
        refused(&pod, "command: a sealed value stands inside another text");
    }
}

/// The place in a sealed text is a name, without a container's.
#[test]
fn attack_variable_that_the_host_chooses_under_the_name_of_a_sealed_one() {
    let choosing = |name: &str| {
        let mut pod = with_variable("PW", &sealed("PW"));
        pod.containers[2].env.push(EnvVar { name: name.to_owned(), value: "x".into() });
        let any = Bound::Pattern(".*".to_owned());
        pod.containers[2].choices.mutable.insert(name.to_owned(), any);
        pod
    };
    made(&choosing("MODE")).unwrap();
    refused(&choosing("PW"), "container \"web\" has a sealed value of that name");
}
