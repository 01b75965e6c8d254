//! Variables of services.

use super::*;
use crate::Platform;

const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: my-db}\nspec:\n  ports:\n  - {name: pg, port: 5432}\n  \
     - {name: dns-udp, port: 53, protocol: UDP}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {clusterIP: None, ports: [{port: 1}]}\n---\n\
     apiVersion: v1\nkind: Service\nmetadata: {name: fixed}\nspec: {clusterIP: 10.0.0.9, ports: [{port: 1}]}\n---\n";

fn env(
    platform: Platform,
    names: &str,
    container: &str,
    spec: &str,
) -> Result<Vec<String>, ManifestError> {
    let mut text = format!("{SERVICES}{}", pod_yaml(container, spec));
    if !names.is_empty() {
        let annotation =
            format!("name: web\n  annotations:\n    anchorhold.dev/services: '{names}'\n");
        text = text.replace("name: web\n", &annotation);
    }
    let pod = pod_on(platform, &text)?;
    let host = HostValues::placeholders(&pod);
    let request = requests::create_container(&pod, 0, &host).unwrap();
    Ok(request.OCI.Process.Env.iter().skip(2).cloned().collect())
}

const KUBERNETES: [&str; 7] = [
    "KUBERNETES_SERVICE_HOST=$(service-ip-0)",
    "KUBERNETES_SERVICE_PORT=443",
    "KUBERNETES_SERVICE_PORT_HTTPS=443",
    "KUBERNETES_PORT=tcp://$(service-ip-0):443",
    "KUBERNETES_PORT_443_TCP_PROTO=tcp",
    "KUBERNETES_PORT_443_TCP_PORT=443",
    "KUBERNETES_PORT_443_TCP_ADDR=$(service-ip-0)",
];

#[test]
fn a_cluster_tells_of_its_api_and_of_named_services() {
    use Platform::{Cluster, OneMachine};
    let none: [&str; 0] = [];
    assert_eq!(env(OneMachine, "", "", "").unwrap(), none);
    assert_eq!(env(OneMachine, "", "", "enableServiceLinks: false").unwrap(), none);
    for (platform, spec) in [
        (OneMachine, "enableServiceLinks: true"),
        (Cluster, "enableServiceLinks: false"),
        (Cluster, ""),
    ] {
        let found = env(platform, "", "", &format!("automountServiceAccountToken: false\n{spec}"));
        let found = found.unwrap();
        assert_eq!(found[..7], KUBERNETES, "{platform:?} {spec}");
        assert_eq!(found[7..], ["KUBERNETES_PORT_443_TCP=tcp://$(service-ip-0):443"]);
    }
    let named = env(OneMachine, "[\"my-db\", \"fixed\"]", "", "enableServiceLinks: true").unwrap();
    let expect = [
        "MY_DB_SERVICE_HOST=$(service-ip-1)",
        "MY_DB_SERVICE_PORT=5432",
        "MY_DB_SERVICE_PORT_PG=5432",
        "MY_DB_SERVICE_PORT_DNS_UDP=53",
        "MY_DB_PORT=tcp://$(service-ip-1):5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_ADDR=$(service-ip-1)",
        "MY_DB_PORT_5432_TCP=tcp://$(service-ip-1):5432",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_ADDR=$(service-ip-1)",
        "MY_DB_PORT_53_UDP=udp://$(service-ip-1):53",
    ];
    assert_eq!(named[8..21], expect);
    assert_eq!(named[21], "FIXED_SERVICE_HOST=10.0.0.9");
}

#[test]
fn variables_of_services_are_expanded_and_give_way_to_the_pod_s() {
    let container = "env:\n- {name: API, value: https://$(KUBERNETES_SERVICE_HOST)}\n- {name: KUBERNETES_PORT, value: own}";
    let found = env(Platform::OneMachine, "", container, "enableServiceLinks: true").unwrap();
    assert_eq!(found[..3], ["API=https://$(service-ip-0)", "KUBERNETES_PORT=own", KUBERNETES[0]]);
    assert_eq!(found.len(), 9);
}

#[test]
fn services_that_cannot_be_known_are_refused() {
    let check = |names: &str, spec: &str, words: &str| {
        let error = env(Platform::OneMachine, names, "", spec).unwrap_err();
        assert_eq!(error.place.path, "metadata.annotations.anchorhold.dev/services");
        assert!(error.to_string().contains(words), "{error}");
    };
    let on = "enableServiceLinks: true";
    check("[\"other\"]", on, "Service \"other\" is not in the file");
    check("[\"none\"]", on, "an address");
    check("[\"fixed\"]", "", "enableServiceLinks is not true");
    check("[\"fixed\", \"fixed\"]", on, "each name once");
    check("fixed", on, "JSON like");
}
