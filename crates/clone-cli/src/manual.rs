// SPDX-License-Identifier: GPL-2.0-only

//! `mysql-clone manual DIR`: writes the manual pages and the completions of shells, for packages.
//! `make man` runs this command. The help text does not show it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::failure::{Failure, Kind, Result};

/// The shells, and where a package has the completions for each of them, below `/usr/share`.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/mysql-clone"),
    (Shell::Fish, "fish/vendor_completions.d/mysql-clone.fish"),
    (Shell::Zsh, "zsh/vendor-completions/_mysql-clone"),
];

/// The name of the command.
pub(crate) const NAME: &str = "manual";

/// The command. `program` does not have it, so that neither pages nor completions show it.
pub(crate) fn command() -> Command {
    let directory = Arg::new("DIR")
        .help("Where the files go: DIR/man/man1 and so on, as below /usr/share")
        .required(true)
        .value_parser(value_parser!(PathBuf));
    Command::new(NAME).about("Writes the manual pages and completions").hide(true).arg(directory)
}

/// Runs the command: writes what belongs to `program`.
pub(crate) fn run(arguments: &ArgMatches, program: Command) -> Result<()> {
    let Some(directory) = arguments.get_one::<PathBuf>("DIR") else {
        return Err(Failure::new(Kind::Usage, "manual: DIR is missing"));
    };
    write(directory, program).map_err(|error| {
        let text = format!("cannot write the manual into '{}': {error}", directory.display());
        Failure::new(Kind::Disk, text)
    })
}

fn write(directory: &Path, mut program: Command) -> io::Result<()> {
    // One page for the program and one for each of its commands. `help` needs none.
    let pages = directory.join("man/man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(program.clone().disable_help_subcommand(true), &pages)?;
    for (shell, file) in SHELLS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut program, "mysql-clone", &mut text);
        let file = directory.join(file);
        fs::create_dir_all(file.parent().unwrap_or(directory))?;
        fs::write(file, text)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn each_command_has_a_page_and_each_shell_its_completions() {
        let directory = tempfile::tempdir().unwrap();
        let program = crate::program();
        let names: Vec<_> = program
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| format!("mysql-clone-{}.1", command.get_name()))
            .collect();
        assert!(names.len() >= 3, "{names:?}");
        write(directory.path(), program).unwrap();
        let pages = directory.path().join("man/man1");
        let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
        for name in &names {
            assert!(page(name).contains(".SH OPTIONS"), "{name}");
        }
        assert!(page("mysql-clone.1").contains("Exit codes"));
        assert_eq!(fs::read_dir(&pages).unwrap().count(), names.len() + 1, "{names:?}");
        for (shell, file) in SHELLS {
            let text = fs::read_to_string(directory.path().join(file)).unwrap();
            assert!(text.contains("datadir") && text.contains("keyring-file"), "{shell}");
            assert!(!text.contains(NAME), "{shell}");
        }
    }

    #[test]
    fn bash_completes() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), crate::program()).unwrap();
        let script = "source \"$1\"; COMP_WORDS=(mysql-clone pull --max); COMP_CWORD=2
            function=$(complete -p mysql-clone | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            \"$function\" mysql-clone --max pull; echo \"${COMPREPLY[@]}\"";
        let output = process::Command::new("bash")
            .args(["-euc", script, "bash"])
            .arg(directory.path().join(SHELLS[0].1))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--max-rate", "{output:?}");
    }
}
