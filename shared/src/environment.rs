//! The environment, as far as it may be believed.

/// A variable's value; `None` where it is unset, empty or no text, and in programs that run with more rights than whoever
/// started them (set-user-ID and the like: `AT_SECURE` of getauxval(3)).
///
/// There the variables are the caller's, and one of ours names a library to be loaded.
pub(crate) fn variable(name: &str) -> Option<String> {
    if crate::ffi::is_privileged() {
        return None;
    }
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
