//! The words of a command line: how one is read, and how it is handed to a shell that is not asked for. Pure.
//!
//! ssh hands what it is told to run to the shell of the user on the other machine. So each word is quoted for it, and what a person
//! wrote for a shell (`|`, `$`, `>` and the like) is refused where it stands bare: it would do something else than it says.

use anyhow::{Result, bail};

/// 64 KiB of a command.
const COMMAND_MAX: usize = 64 << 10;
/// What a shell has a meaning for.
const MEANT_FOR_A_SHELL: &str = "|&;<>()$`*?[]{}#~!";

/// Reads a command as a POSIX shell splits it, and expands nothing: blanks part, `'…'` and `"…"` hold together, `\` takes the next
/// character as it is.
///
/// # Errors
/// When it is too long, has a control character, a quote without an end, or something bare that is meant for a shell.
pub(crate) fn read(command: &str) -> Result<Vec<String>> {
    if command.len() > COMMAND_MAX {
        bail!("it has {} bytes, and 65536 at the most", command.len());
    }
    check(command)?;
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some('"'), '\\') => match letters.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.get_or_insert_default().push(next),
                Some(next) => word.get_or_insert_default().extend(['\\', next]),
                None => bail!("it ends with a backslash"),
            },
            (Some('"'), '$' | '`') => {
                bail!("`{letter}` within \"…\" is meant for a shell, and there is none: write it within '…'")
            }
            (Some(_), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '\\') => match letters.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => bail!("it ends with a backslash"),
            },
            (None, ' ') => words.extend(word.take()),
            (None, letter) if MEANT_FOR_A_SHELL.contains(letter) => {
                bail!(
                    "`{letter}` is meant for a shell, and there is none: quote it ('{letter}') if it belongs to a word"
                )
            }
            (None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        bail!("a quote {open} has no end");
    }
    words.extend(word);
    Ok(words)
}

/// Words as a POSIX shell reads them back: each in single quotes.
///
/// # Errors
/// When one has a control character, which a terminal, a log or a shell on the way may take for something else.
pub(crate) fn quoted(words: &[String]) -> Result<String> {
    words.iter().try_for_each(|word| check(word))?;
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    Ok(quoted.collect::<Vec<_>>().join(" "))
}

fn check(text: &str) -> Result<()> {
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => bail!("it has the control character {}", letter.escape_default()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_as_a_shell_splits_it() {
        let words =
            read(r#"join  --set 'modules.edged.labels={"a":"b c"}' --name="x y"\ z "" it\'s "a\"b\c""#)
                .unwrap();
        assert_eq!(
            words,
            ["join", "--set", r#"modules.edged.labels={"a":"b c"}"#, "--name=x y z", "", "it's", r#"a"b\c"#]
        );
    }

    #[test]
    fn what_is_meant_for_a_shell_is_refused() {
        for (command, said) in [
            ("join --token=$TOKEN", "`$` is meant for a shell"),
            ("join; reboot", "`;` is meant"),
            ("join `hostname`", "`` ` `` is meant"),
            ("join \"$(hostname)\"", "within"),
            ("join 'x", "a quote ' has no end"),
            ("join \\", "ends with a backslash"),
            ("join\nreboot", "control character \\n"),
            ("join a\u{1b}b", "control character"),
        ] {
            let error = read(command).unwrap_err().to_string();
            assert!(
                error.replace("```", "`` ` ``").contains(said) || error.contains(said),
                "{command}: {error}"
            );
        }
        assert!(read(&"x".repeat(COMMAND_MAX + 1)).is_err());
    }

    /// What a real shell makes of them stands in `tests/batch.rs`.
    #[test]
    fn each_word_is_quoted_for_a_shell() {
        let words = ["join", "it's", "$(reboot)", ""].map(str::to_owned);
        assert_eq!(quoted(&words).unwrap(), r"'join' 'it'\''s' '$(reboot)' ''");
        assert!(quoted(&["a\nb".to_owned()]).is_err());
    }
}
