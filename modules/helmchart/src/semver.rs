//! Whether a version of Kubernetes is older than another, as charts ask it.

/// `>=1.30.0-0` or `<1.36.0-0` of a version as `v1.36.2+vendor.1`. The `-0` is Helm's way to count pre-releases in, which are
/// counted in here in any case: a vendor's `1.36.0-gke.1` has what 1.36 has.
///
/// # Errors
/// When either is no such thing.
pub(crate) fn satisfies(constraint: &str, version: &str) -> Result<bool, String> {
    let (is_at_least, bound) = if let Some(bound) = constraint.strip_prefix(">=") {
        (true, bound)
    } else if let Some(bound) = constraint.strip_prefix('<') {
        (false, bound)
    } else {
        return Err(format!("`{constraint}` is no constraint that is known here: >= or <"));
    };
    let bound = numbers(bound).ok_or_else(|| format!("`{bound}` is no version"))?;
    let version = numbers(version).ok_or_else(|| format!("`{version}` is no version"))?;
    Ok((version >= bound) == is_at_least)
}

/// Major, minor and patch.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let version = version.trim().strip_prefix('v').unwrap_or(version.trim());
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let mut parts = version.get(..end)?.split('.');
    let mut number = || match parts.next() {
        Some(part) => part.parse().ok(),
        None => Some(0),
    };
    let numbers = [number()?, number()?, number()?];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_vendors_are_not_older() {
        for (version, since_30, before_36) in [
            ("v1.29.15", false, true),
            ("v1.30.0", true, true),
            ("1.35.9-eks-123", true, true),
            ("v1.36.0-alpha.1", true, false),
            ("v1.36.2+k3s1", true, false),
            ("v1.100.0", true, false),
            ("v2.0", true, false),
        ] {
            assert_eq!(satisfies(">=1.30.0-0", version), Ok(since_30), "{version}");
            assert_eq!(satisfies("<1.36.0-0", version), Ok(before_36), "{version}");
        }
        for bad in ["", "v", "1.x", "1.2.3.4", "latest"] {
            assert!(satisfies(">=1.30.0-0", bad).is_err(), "{bad}");
        }
        assert!(satisfies("~1.30", "1.30.0").is_err());
    }
}
