//! Who gives a command: the name that the journal's line carries (I12).

use std::fs;

/// The user of this process.
pub(crate) fn this_user() -> String {
    user_name(rustix::process::getuid().as_raw())
}

/// The name of a user by number; `uid 1000` where the machine does not know it.
pub(crate) fn user_name(uid: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").ok().and_then(|passwd| name_in(&passwd, uid));
    known.unwrap_or_else(|| format!("uid {uid}"))
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_user_table() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
