//! Prints docs/kinds.md.

fn main() {
    print!("{}", ah_manifest::kinds_page());
}
