//! Where things are kept: one data folder, one cache folder, both the user's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders of one invocation.
#[derive(Debug, Clone)]
pub struct Dirs {
    data: PathBuf,
    cache: PathBuf,
    keys: Option<PathBuf>,
    layers: Option<PathBuf>,
}

impl Dirs {
    /// `--data` and `--cache`, else `XDG_DATA_HOME` and `XDG_CACHE_HOME`, else below `HOME`.
    ///
    /// # Errors
    /// When none of them is set.
    pub fn new(data: Option<&Path>, cache: Option<&Path>) -> Result<Self> {
        Ok(Self {
            data: folder(data, "XDG_DATA_HOME", ".local/share", "--data")?,
            cache: folder(cache, "XDG_CACHE_HOME", ".cache", "--cache")?,
            keys: None,
            layers: None,
        })
    }

    /// Both folders below one parent, as tests and the demo want them.
    pub fn below(parent: &Path) -> Self {
        Self { data: parent.join("data"), cache: parent.join("cache"), keys: None, layers: None }
    }

    /// The same with the key service elsewhere.
    pub fn with_keys(self, keys: PathBuf) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// The same with the layer cache elsewhere.
    pub fn with_layers(self, layers: PathBuf) -> Self {
        Self { layers: Some(layers), ..self }
    }

    /// The guest image that `guest build` writes and `run` boots.
    pub fn guest(&self) -> PathBuf {
        self.data.join("guest")
    }

    /// The local key service's database, key-encryption key and decision log.
    pub fn keys(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| self.data.join("keys"))
    }

    /// The software TEE's root, intermediate and VCEK.
    pub fn software_tee(&self) -> PathBuf {
        self.data.join("software-tee")
    }

    /// Converted layers.
    pub fn layers(&self) -> PathBuf {
        self.layers.clone().unwrap_or_else(|| self.cache.join("layers"))
    }

    /// What is known of images and layers without having them.
    pub fn facts(&self) -> PathBuf {
        self.cache.join("facts")
    }

    /// Scratch disks of running pods, which have no names there. Not among temporary files, which may be kept in memory.
    pub fn scratch(&self) -> PathBuf {
        self.cache.join("scratch")
    }

    /// Downloaded kernel packages.
    pub fn kernel(&self) -> PathBuf {
        self.cache.join("kernel")
    }
}

fn folder(given: Option<&Path>, xdg: &str, home: &str, option: &str) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_path_buf());
    }
    if let Some(base) = std::env::var_os(xdg).filter(|base| Path::new(base).is_absolute()) {
        return Ok(Path::new(&base).join("anchorhold"));
    }
    let user = std::env::var_os("HOME")
        .with_context(|| format!("neither {option} nor {xdg} nor HOME says where to keep files"))?;
    Ok(Path::new(&user).join(home).join("anchorhold"))
}
