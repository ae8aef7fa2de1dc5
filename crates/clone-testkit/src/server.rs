// SPDX-License-Identifier: GPL-2.0-only

//! Where the MySQL binaries are.
//!
//! `mysql-test/server.sh` provides real servers and prints where they lie as shell assignments. The
//! same variables in the environment take precedence, so that another build can be tested; not
//! where a test asks for a certain release.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};

/// The binaries of one MySQL server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The directory that holds the server's own `usr` and `lib`; also `--basedir`.
    pub root: PathBuf,
    /// The mysqld binary.
    pub mysqld: PathBuf,
    /// The dynamic loader to start mysqld with, when the host's libc is too old for it.
    pub loader: Option<PathBuf>,
    /// The loader's `--library-path`.
    pub library_path: OsString,
    /// The plugins that came with the server.
    pub plugin_dir: PathBuf,
    /// Error messages and character sets.
    pub share_dir: PathBuf,
    /// As the server reports it, e.g. `9.7.4-2`.
    pub version: String,
}

/// In the order of the fields of [`Server`].
const VARIABLES: [&str; 7] = [
    "MYSQL_CLONE_ROOT",
    "MYSQL_CLONE_MYSQLD",
    "MYSQL_CLONE_LOADER",
    "MYSQL_CLONE_LIBRARY_PATH",
    "MYSQL_CLONE_PLUGIN_DIR",
    "MYSQL_CLONE_SHARE_DIR",
    "MYSQL_CLONE_VERSION",
];

/// Evaluates the script's output in a shell and prints the variables, each ended by a NUL byte.
const EVALUATE: &str = r#"
set -eu
assignments=$("$1" ${2:+"$2"})
eval "$assignments"
shift 2
for name; do printf '%s\0' "${!name-}"; done
"#;

impl Server {
    /// The server to test with. Runs `mysql-test/server.sh` at most once per process.
    pub fn locate() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Server, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| Self::find().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("no MySQL server to test with: {error}"))
    }

    /// The server of a release that `mysql-test/server.sh --list` names. Runs the script at most
    /// once for each.
    pub fn release(release: &str) -> Result<&'static Self> {
        static FOUND: Mutex<BTreeMap<String, &'static Server>> = Mutex::new(BTreeMap::new());
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = found.get(release) {
            return Ok(server);
        }
        let values = Self::ask_script(&script(), release)
            .with_context(|| format!("no MySQL {release} to test with"))?;
        let server: &'static Self = Box::leak(Box::new(Self::from_values(values)?));
        found.insert(release.to_owned(), server);
        Ok(server)
    }

    /// A command that starts mysqld with the options every invocation needs.
    pub fn command(&self) -> Command {
        let mut command = match &self.loader {
            Some(loader) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(&self.library_path).arg(&self.mysqld);
                command
            }
            None => Command::new(&self.mysqld),
        };
        command
            // No option file of the host. With --no-defaults, persisted variables would not be
            // read.
            .arg("--defaults-file=/dev/null")
            .arg(option("basedir", &self.root))
            .arg(option("lc-messages-dir", &self.share_dir))
            .arg(option("character-sets-dir", &self.share_dir.join("charsets")));
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command
    }

    fn find() -> Result<Self> {
        let mut values: Vec<OsString> =
            VARIABLES.iter().map(|name| env::var_os(name).unwrap_or_default()).collect();
        if values.get(1).is_none_or(|mysqld| mysqld.is_empty()) {
            values = Self::ask_script(&script(), "")?;
        }
        Self::from_values(values)
    }

    fn from_values(values: Vec<OsString>) -> Result<Self> {
        let found: [OsString; 7] = values.try_into().map_err(|values: Vec<_>| {
            anyhow::anyhow!("{} values instead of {}", values.len(), VARIABLES.len())
        })?;
        let [root, mysqld, loader, library_path, plugin_dir, share_dir, version] = found;
        let server = Self {
            root: root.into(),
            mysqld: mysqld.into(),
            loader: (!loader.is_empty()).then(|| loader.into()),
            library_path,
            plugin_dir: plugin_dir.into(),
            share_dir: share_dir.into(),
            version: version.to_string_lossy().into_owned(),
        };
        for (name, path) in [
            ("MYSQL_CLONE_MYSQLD", &server.mysqld),
            ("MYSQL_CLONE_PLUGIN_DIR", &server.plugin_dir),
            ("MYSQL_CLONE_SHARE_DIR", &server.share_dir),
        ] {
            ensure!(path.exists(), "{name} is '{}', which does not exist", path.display());
        }
        ensure!(!server.version.is_empty(), "MYSQL_CLONE_VERSION is empty");
        Ok(server)
    }

    fn ask_script(script: &Path, release: &str) -> Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStringExt;

        ensure!(
            script.exists(),
            "{} is missing and MYSQL_CLONE_MYSQLD is not set",
            script.display()
        );
        let output = Command::new("bash")
            .args(["-c", EVALUATE, "server.sh"])
            .arg(script)
            .arg(release)
            .args(VARIABLES)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("run {}", script.display()))?;
        if !output.status.success() {
            bail!("{} failed with {}", script.display(), output.status);
        }
        let mut values: Vec<OsString> = output
            .stdout
            .split(|&byte| byte == 0)
            .map(|v| OsString::from_vec(v.to_vec()))
            .collect();
        values.pop();
        Ok(values)
    }
}

/// `--name=value` for a value that need not be UTF-8.
pub(crate) fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

fn script() -> PathBuf {
    workspace().join("mysql-test/server.sh")
}

/// The root of the checkout.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.sh");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    #[test]
    fn script_output_is_evaluated_by_a_shell() {
        let (_dir, path) = script(
            "#!/bin/sh\necho \"MYSQL_CLONE_ROOT='/a b'\"\necho MYSQL_CLONE_VERSION=${1-9.7.4-2}\n",
        );
        let values = Server::ask_script(&path, "").unwrap();
        assert_eq!(values.len(), VARIABLES.len());
        assert_eq!(values[0], "/a b");
        assert_eq!(values[1], "");
        assert_eq!(values[6], "9.7.4-2");
        assert_eq!(Server::ask_script(&path, "8.0.36").unwrap()[6], "8.0.36");
    }

    #[test]
    fn failing_script_is_reported() {
        let (_dir, path) = script("#!/bin/sh\nexit 3\n");
        let error = Server::ask_script(&path, "").unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }
}
