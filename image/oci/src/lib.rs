//! OCI images: layouts, archives, manifests, configs, and the strict reading of a layer tar into a file tree.
#![forbid(unsafe_code)]
