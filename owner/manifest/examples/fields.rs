//! Prints docs/kubernetes-fields.md.

fn main() {
    print!("{}", ah_manifest::fields::page());
}
