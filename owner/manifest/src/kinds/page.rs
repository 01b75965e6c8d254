//! The page docs/kinds.md, of the tables that the reader obeys.

use super::KINDS;
use crate::rules::Rules;

/// The page.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    for kind in &KINDS {
        let path = match kind.template_path {
            "" => "the object",
            path => path,
        };
        page += &format!(
            "| {} {} | {path} | {} | {} |\n",
            kind.api_version,
            kind.kind,
            kind.names,
            kind.restart.words()
        );
    }
    page += MIDDLE;
    for rule in Rules::shipped().rules() {
        let pods: Vec<_> = rule.pods.iter().map(|pod| format!("`{}`", pod.path)).collect();
        let completed = rule.pods.iter().filter_map(|pod| pod.completed.as_ref());
        let mut verdicts: Vec<String> = Vec::new();
        let completed = completed.map(|completed| match &completed.unless_annotation {
            None => format!("refused: {}", completed.why),
            Some(is) => {
                format!(
                    "read with `{}: {}`, else refused: {}",
                    is.key,
                    is.values.join("` or `"),
                    completed.why
                )
            }
        });
        let refused = rule.refused.iter().map(|refused| format!("refused: {}", refused.why));
        for verdict in completed.chain(refused) {
            if !verdicts.contains(&verdict) {
                verdicts.push(verdict);
            }
        }
        let pods = if pods.is_empty() { "none".into() } else { pods.join(", ") };
        page +=
            &format!("| {} {} | {pods} | {} |\n", rule.api_version, rule.kind, verdicts.join("; "));
    }
    page + TAIL
}

const HEAD: &str = "\
# Kinds: where pods are found, and what they are called

Generated from the tables that the reader of manifests obeys (`owner/manifest/src/kinds`, `owner/manifest/src/rules/shipped.yaml`)
by `cargo run -p ah-manifest --example kinds > docs/kinds.md`; a test compares them.

## Kubernetes' own kinds

The policy fixes the pod's name where the manifest says it, and bounds it where a controller names the pod: SUFFIX is 5 of
`bcdfghjklmnpqrstvwxz2456789`, HASH 1 to 10 of `4-9bcdf`, ORDINAL and INDEX decimal numbers, TIME 8 to 10 digits. What stands before
SUFFIX is cut to 58 characters, as the API server cuts it.

| kind | pod template | name of its pods | restartPolicy |
|---|---|---|---|
";

const MIDDLE: &str = "
* A `List` (`v1`), and a list of one kind (`PodList`, `DeploymentList` …), is read item by item, and each item is edited at its place.
* A StatefulSet's pods have their name as host name, the `serviceName` as subdomain, and a volume for each of
  `volumeClaimTemplates`, which is judged as a persistentVolumeClaim of the pod is.
* An Indexed Job's pods have NAME-INDEX as host name and `JOB_COMPLETION_INDEX` in each container; name, host name and variable
  must agree. In a CronJob `completionMode: Indexed` is refused: the host name would hold the time. With `podFailurePolicy` or
  `backoffLimitPerIndex` only `restartPolicy: Never` is accepted, as by Kubernetes.
* `status` and `managedFields` are not looked at: `kubectl get -o yaml` is read as it comes.

Read for the pods of the same namespace, in the same file or in files that are read together:

| kind | what for |
|---|---|
| v1 ConfigMap, v1 Secret | values of environment variables |
| v1 LimitRange | limits and requests (`type: Container`) that a container does not say |
| v1 ServiceAccount | `automountServiceAccountToken` and `imagePullSecrets` that the pod does not say |

An object of one of these kinds that is given twice with different contents is an error: the order of files decides nothing.

All other kinds pass through untouched. If one of them holds something that looks like a pod (a list `containers` or
`initContainers` of which an item has an `image`), reading ends with an error that names the path: write a rule, or allow pods without
a policy by the option that says so.

## Kinds with a rule

A rule says where an object has pods and what they are called. Some controllers do not run what the object says but complete it
first; a policy of the object alone would deny what they add. Such pods are refused with the reason, unless the option
to accept incomplete pods is given: then the template is read, pinned and annotated as it stands.

| kind | pods | what becomes of it |
|---|---|---|
";

const TAIL: &str = "
Of three kinds of controllers no rule that comes with the project can say what they add:

* **Knative** adds `queue-proxy`, whose image is the installation's and whose three dozen variables are made of the cluster's settings. A
  rule of your own can say them, see below. Name the revision (`spec.template.metadata.name`), since the container learns its name.
* **Spark's operator** runs `spark-submit` for the object. Names of the driver's ConfigMap and folder, and the application's id, are random
  or the time, and stand in arguments, variables and mount paths: bounds for those would let the host choose where a volume is
  mounted. Run the driver in client mode as a Job, and the executors as a StatefulSet, which says the same and names everything.
* **Argo** runs a step's command through `argoexec`, with the step's template as a variable that holds the workflow's state: it
  differs for each run. Run the step as a Job.

KServe also adds containers for the variable `STORAGE_URI` and for annotations of its webhooks: a policy made without them denies
them.

## A rule of your own

A file of rules has this form. An unknown field is an error; for a kind that has a shipped rule, yours counts; kinds of the
first table, and of `v1`, take no rule.

```yaml
rules:
- apiVersion: example.com/v1
  kind: Fleet
  pods:
  - path: spec.ships[*].template      # [*] after each list; a path that is not there is no pod
    shape: template                   # metadata and spec; or `spec`: a PodSpec
    name:
      form: deployment                # fixed, suffixed, deployment, ordinal (as of a StatefulSet), free (anything follows)
      base: \"{name}-ship\"             # {name} is the object's name, {template} the pod template's
    ownFields: [captain]              # fields of the kind's own among those of the PodSpec: not looked at
    containerName: main               # what a container without a name is called
  - path: spec.harbour
    shape: spec
    annotations: podAnnotations       # below the path: where the policy's annotation goes
    labels: podLabels
    name: {form: free, base: \"{name}-\"}
    adds:                             # what the controller adds, as it is to be seen in the cluster's pods
      env: [{name: FLEET, value: \"{name}\"}]        # variables of each container, after its own
      volumeMounts: []                # of each container, after its own
      containers:                     # after the object's own; each image with its digest
      - {name: lookout, image: \"lookout@sha256:…\", args: [\"--of={namespace}/{name}\"]}
      volumes: []                     # after the object's own
    completed:                        # the controller adds to the pod what nobody can know
      why: the harbour adds a pilot
      hint: bring your own pilot
      unlessAnnotation: {key: example.com/pilot, values: [own]}
  refused:
  - path: spec.ships[*]               # refused where something there has one of these fields, or lacks one
    has: [engine]
    lacks: [template]
    why: the engine is no container
    hint: sail
```

For Knative's Services, from one pod of the cluster (`kubectl get pod -o yaml`) taken over once for each version of Knative:

```yaml
rules:
- apiVersion: serving.knative.dev/v1
  kind: Service
  pods:
  - path: spec.template
    name: {form: deployment, base: \"{template}-deployment\"}
    ownFields: [containerConcurrency, timeoutSeconds, responseStartTimeoutSeconds, idleTimeoutSeconds]
    containerName: user-container
    adds:
      env:                            # in the order of the cluster's pods: versions of Knative differ
      - {name: PORT, value: \"8080\"}
      - {name: K_REVISION, value: \"{template}\"}
      - {name: K_CONFIGURATION, value: \"{name}\"}
      - {name: K_SERVICE, value: \"{name}\"}
      containers:
      - name: queue-proxy
        image: queue@sha256:…
        env:
        - {name: SERVING_NAMESPACE, value: \"{namespace}\"}
        - {name: SERVING_SERVICE, value: \"{name}\"}
        - {name: SERVING_REVISION, value: \"{template}\"}
        - {name: SERVING_POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: SERVING_POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        # and so on, in the pod's order
```
";
