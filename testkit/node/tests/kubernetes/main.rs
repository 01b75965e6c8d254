//! Pods on a real Kubernetes: kubelet, scheduler, API server, with our snapshotter below them.

mod controllers;
mod keys;
mod pods;
mod site;
mod tokens;
