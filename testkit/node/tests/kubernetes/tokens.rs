//! A service account's token, which the kubelet renews while a pod runs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::site::{cluster, confidential};

/// The kubelet renews a token of ten minutes, the shortest there is, when a fifth of its time is left (kubernetes 1.20,
/// `pkg/kubelet/token/token_manager.go`, `requiresRefresh`), and looks each minute or two.
const RENEWED_WITHIN: Duration = Duration::from_secs(720);

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: bearer}
spec:
  runtimeClassName: anchorhold-cc
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  serviceAccountName: default
  containers:
  - name: main
    image: localhost/busybox:1
    command:
    - sh
    - -c
    - |
      first=$(cat /tokens/token)
      echo $first
      while [ "$(cat /tokens/token)" = "$first" ]; do sleep 2; done
      cat /tokens/token
    volumeMounts: [{name: tokens, mountPath: /tokens}]
  volumes:
  - name: tokens
    projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}
"#;

/// What a token claims. Its signature is the API server's business.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap_or_else(|| panic!("not a token: {token:?}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "nine minutes, until a token is renewed: cargo xtask soak token"]
async fn a_token_that_the_kubelet_renews_is_renewed_in_the_pod() {
    let Some((cluster, folder)) = cluster().await else { return };
    let pod = confidential(&cluster, folder.path(), POD).await;
    cluster.apply(&pod).unwrap();
    let phase = cluster.wait_for_end("bearer", RENEWED_WITHIN);
    let phase = phase.unwrap_or_else(|error| panic!("{error}\n{}", cluster.node().logs()));
    let logs = cluster.kubectl(&["logs", "bearer"]).unwrap();
    assert_eq!(phase, "Succeeded", "{logs}");
    let tokens: Vec<Value> = logs.lines().map(claims).collect();
    let [first, second] = tokens.as_slice() else { panic!("{logs}") };
    for token in [first, second] {
        assert_eq!(token["aud"], serde_json::json!(["vault"]));
        assert_eq!(token["kubernetes.io"]["pod"]["name"], "bearer");
    }
    assert!(first["exp"].as_i64() < second["exp"].as_i64(), "{first}\n{second}");
}
