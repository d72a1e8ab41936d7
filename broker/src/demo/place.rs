//! Where the demo's data goes: a fresh directory on a real disk, gone at the end unless it shall
//! stay.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use ringway_tuning::{FileSystem, LinuxHost, Storage, StorageError, storage};

/// Why there is no place for the data.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The directory that was named can't be made or read.
    #[error("{path}: {source}", path = .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory that was named has something in it.
    #[error(
        "{path} is not empty, and the demo begins with nothing: name an empty or new directory",
        path = .0.display()
    )]
    NotEmpty(PathBuf),
    /// The directory that was named is no place for durable data.
    #[error("{path}: {why}: name a directory on a disk", path = .path.display())]
    Unfit {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// None of the usual directories will do.
    #[error("no directory for the data: {}; name one on a disk with --data-dir", .0.join("; "))]
    Nowhere(Vec<String>),
    /// The directory can't be examined.
    #[error("{0}")]
    Storage(#[from] StorageError),
}

/// A fresh directory for the data.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    storage: Storage,
    kept: bool,
}

impl Place {
    /// The directory that was named, which must be empty or new, and stays; or else a new one in
    /// the current directory or, where that is no disk, in one for temporary files.
    ///
    /// # Errors
    /// [`PlaceError`] says what is wrong with each.
    pub(super) fn choose(named: Option<&Path>, keep: bool) -> Result<Self, PlaceError> {
        if let Some(path) = named {
            return Self::named(path);
        }
        let candidates = [PathBuf::from("."), std::env::temp_dir(), "/var/tmp".into()];
        let mut refused = Vec::new();
        for directory in candidates {
            match Self::within(&directory, keep) {
                Ok(place) => return Ok(place),
                Err(why) => refused.push(format!("{}: {why}", directory.display())),
            }
        }
        Err(PlaceError::Nowhere(refused))
    }

    fn named(path: &Path) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Directory {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(PlaceError::NotEmpty(path.to_owned()));
        }
        let storage = storage(path, &LinuxHost)?;
        if let Some(why) = unfit(&storage) {
            let path = path.to_owned();
            return Err(PlaceError::Unfit { path, why });
        }
        Ok(Self {
            path: path.to_owned(),
            storage,
            kept: true,
        })
    }

    fn within(directory: &Path, keep: bool) -> Result<Self, String> {
        let storage = storage(directory, &LinuxHost).map_err(|error| error.source.to_string())?;
        if let Some(why) = unfit(&storage) {
            return Err(why);
        }
        let path = create_unique(directory).map_err(|error| error.to_string())?;
        Ok(Self {
            path,
            storage,
            kept: keep,
        })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it stands on.
    pub(super) const fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether it stays.
    pub(super) const fn kept(&self) -> bool {
        self.kept
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}

fn unfit(storage: &Storage) -> Option<String> {
    match (&storage.file_system, storage.direct_io) {
        (FileSystem::Other { kind, memory: true }, _) => {
            Some(format!("{kind} is memory, where nothing is durable"))
        }
        (kind, None) => Some(format!("{kind} has no direct I/O here")),
        (_, Some(_)) => None,
    }
}

fn create_unique(directory: &Path) -> io::Result<PathBuf> {
    loop {
        let random = RandomState::new().build_hasher().finish() as u16;
        let path = directory.join(format!("ringway-demo-{random:04x}"));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_directory_goes_and_a_named_one_stays() {
        let place = Place::choose(None, false).unwrap();
        let path = place.path().to_owned();
        assert!(path.is_dir() && !place.kept());
        std::fs::write(path.join("data"), "x").unwrap();
        drop(place);
        assert!(!path.exists());

        let place = Place::choose(None, true).unwrap();
        let path = place.path().to_owned();
        drop(place);
        assert!(path.is_dir());
        let place = Place::choose(Some(&path), false).unwrap();
        assert!(place.kept(), "it was somebody's wish");
        std::fs::write(path.join("data"), "x").unwrap();
        drop(place);
        let refused = Place::choose(Some(&path), false).unwrap_err();
        assert!(matches!(refused, PlaceError::NotEmpty(_)), "{refused}");
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn memory_is_no_disk() {
        let memory = Path::new("/dev/shm");
        let is_memory = storage(memory, &LinuxHost)
            .is_ok_and(|found| matches!(found.file_system, FileSystem::Other { memory: true, .. }));
        if is_memory {
            let why = Place::within(memory, false).unwrap_err();
            assert!(why.contains("memory"), "{why}");
        }
    }
}
