use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use crate::tar_writer::{Entry, TarBuilder};

/// Writes a layout folder as an oci-archive: a tar of its files, in order of their names.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_archive(layout: &Path, out: &Path) -> io::Result<()> {
    let mut tar = TarBuilder::new(BufWriter::new(File::create(out)?));
    for dir in ["blobs/", "blobs/sha256/"] {
        tar.push(&Entry::dir(dir))?;
    }
    let mut blobs = std::fs::read_dir(layout.join("blobs/sha256"))?
        .map(|entry| Ok(format!("blobs/sha256/{}", entry?.file_name().to_string_lossy())))
        .collect::<io::Result<Vec<_>>>()?;
    blobs.sort_unstable();
    blobs.extend(["index.json".to_owned(), "oci-layout".to_owned()]);
    for path in blobs {
        let mut file = File::open(layout.join(&path))?;
        let size = file.metadata()?.len();
        tar.push_data(&Entry::file(path, []), size, &mut file)?;
    }
    tar.finish()?;
    Ok(())
}
