//! Names of signals, as images and pods write them.

/// SIGKILL.
pub const KILL: u32 = 9;
/// SIGTERM: what a container is stopped with where nothing else is said.
pub const TERM: u32 = 15;

/// Linux on x86-64 and arm64 alike (signal(7)); the number is the place, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Other names of the same.
const ALIASES: [(&str, u32); 5] =
    [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31), ("RTMIN", RTMIN)];
/// The first and last real-time signal that programs may use: the C library keeps two for itself.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The number of a signal: a name with or without `SIG` in either case, `RTMIN+n`, `RTMAX-n`, or a number from 1 to 64.
/// `None` for anything else.
pub fn signal_number(text: &str) -> Option<u32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let place = NAMES.iter().position(|known| *known == name);
    let alias = || ALIASES.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number);
    let number = match place {
        Some(place) => u32::try_from(place).ok()?.checked_add(1)?,
        None => alias().or_else(|| real_time(name)).or_else(|| name.parse().ok())?,
    };
    (1..=RTMAX).contains(&number).then_some(number)
}

fn real_time(name: &str) -> Option<u32> {
    let offset = |text: &str| text.parse::<u32>().ok();
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX")) {
        (Some(above), _) => RTMIN.checked_add(offset(above)?)?,
        (_, Some("")) => RTMAX,
        (_, Some(below)) => RTMAX.checked_sub(offset(below.strip_prefix('-')?)?)?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let cases = [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigquit", 3),
            ("SIGWINCH", 28),
            ("SIGSYS", 31),
            ("9", 9),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("SIGRTMAX-1", 63),
            ("SIGPOLL", 29),
        ];
        for (text, number) in cases {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        let none =
            ["", "0", "65", "-1", "SIG", "SIGNOPE", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMAX+1"];
        for text in none {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }
}
