//! Sealed values in a pod: where one would not be opened, or be opened for somebody else, there is no policy.

mod support;

use ah_pod::{
    Bound, EnvVar, FileBytes, FileContent, FileVolume, Pod, Unpinned, Volume, VolumeFile,
    VolumeMount, VolumeSource,
};
use ah_policygen::{Options, generate, generate_for_platforms};
use ah_release_api::{Secret, seal};
use support::{layer, pod};

const OTHER_FORM: &str = "sealed.fakejwsheader.eyJ2ZXJzaW9uIjoiMC4xLjAifQ.fakesignature";

fn sealed(name: &str) -> String {
    sealed_for(&format!("env:{name}"))
}

fn sealed_for(place: &str) -> String {
    let key = Secret::new(vec![7; 32]).unwrap();
    let place = place.parse().unwrap();
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

/// The owner seals for a name; an image's maker could have that text opened in a container of his own.
#[test]
fn attack_image_that_brings_a_sealed_value() {
    let bringing = |mut pod: Pod| {
        pod.containers[2].image.env.push(format!("PW={}", sealed("PW")));
        pod
    };
    let words = "container \"db\": env:PW: the image brings a sealed value";
    refused(&bringing(pod()), words);
    refused(&bringing(with_variable("PW", &sealed("PW"))), words);
    // The pod's own variable takes the image's place.
    let mut own = bringing(pod());
    own.containers[2].env.push(EnvVar { name: "PW".to_owned(), value: "mine".into() });
    made(&own).unwrap();
    let mut plain = pod();
    plain.containers[2].image.env.push("PW=sealed.orders".to_owned());
    made(&plain).unwrap();
    // The image of another platform is another image.
    let on_arm = |mut pod: Pod| {
        pod.containers[2].image.layers = vec![layer("arm db")];
        let others = [("linux/arm64".to_owned(), pod)];
        let made = generate_for_platforms(&support::pod(), &others, &Options::default());
        made.map(drop).map_err(|error| error.to_string())
    };
    on_arm(plain).unwrap();
    let error = on_arm(bringing(pod())).unwrap_err();
    assert!(error.contains(words), "{error}");
}

fn file(path: &str, content: FileContent) -> VolumeFile {
    VolumeFile { path: path.to_owned(), mode: 0o644, content }
}

fn fixed(text: impl Into<Vec<u8>>) -> FileContent {
    FileContent::Fixed(FileBytes(text.into()))
}

/// A pod whose container `web` has these files under /etc/web.
fn with_files(files: Vec<VolumeFile>, unpinned: Option<Unpinned>) -> Pod {
    let mut pod = pod();
    let source = VolumeSource::Files(FileVolume { files, unpinned });
    pod.volumes.push(Volume { name: "web".to_owned(), source });
    pod.containers[1].mounts.push(VolumeMount {
        volume: "web".to_owned(),
        path: "/etc/web".to_owned(),
        read_only: true,
        sub_path: None,
    });
    pod
}

/// What the cluster renews is not opened again: the container would see the sealed text where the secret was.
#[test]
fn attack_sealed_file_beside_files_that_the_cluster_renews() {
    let secret = || file("pw", fixed(sealed_for("file:/etc/web/pw")));
    let words = "file \"pw\" of volume \"web\": a sealed file beside files that the cluster renews";
    made(&with_files(vec![secret(), file("known", fixed("k"))], None)).unwrap();
    let unpinned = || Some(Unpinned { objects: vec!["configMap/late".to_owned()], mode: 0o644 });
    for renewed in [FileContent::Token, FileContent::Free("a token".to_owned())] {
        made(&with_files(vec![file("known", fixed("k")), file("token", renewed.clone())], None))
            .unwrap();
        refused(&with_files(vec![secret(), file("token", renewed)], None), words);
    }
    made(&with_files(vec![file("known", fixed("k"))], unpinned())).unwrap();
    refused(&with_files(vec![secret()], unpinned()), words);
}

#[test]
fn attack_sealed_value_inside_a_file() {
    let place = "file:/etc/web/pw";
    let words = "file:/etc/web/pw: a sealed value stands inside another text";
    let with = |text: String| with_files(vec![file("pw", fixed(text))], None);
    for text in [sealed_for(place), format!("{}\n", sealed_for(place)), "x=sealed.a".to_owned()] {
        made(&with(text)).unwrap();
    }
    for sealed in [sealed_for(place), OTHER_FORM.to_owned()] {
        for text in [format!("password={sealed}"), format!("\n{sealed}")] {
            refused(&with(text), words);
        }
    }
    refused(&with(format!("{0}\n{0}", sealed_for(place))), "sealed");
    let mut bytes = vec![0xff, 0];
    bytes.extend(sealed_for(place).into_bytes());
    refused(&with_files(vec![file("pw", fixed(bytes))], None), words);
}
