//! How long certificates live: a number of days, as KubeEdge writes it, or a time as Go does (`720h`, `10m`).

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Defect;
use crate::kubelet_values::KubeletDuration;

/// The seconds of a day.
const DAY: u64 = 86_400;
/// 100 years: more is a slip of the pen, and no date for some tools.
const DAYS_MAX: u64 = 36_500;
/// 32 characters of what was given are shown.
const SHOWN_MAX: usize = 32;
/// 1 min: a shorter life is over before it is renewed.
const LEAST: Duration = Duration::from_secs(60);

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "DaysOrText", try_from = "DaysOrText")]
pub struct SigningDuration(pub Duration);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum DaysOrText {
    Days(u64),
    Text(String),
    Other(serde_json::Value),
}

impl SigningDuration {
    /// So many days.
    pub const fn days(days: u64) -> Self {
        SigningDuration(Duration::from_secs(days * DAY))
    }
}

impl TryFrom<DaysOrText> for SigningDuration {
    type Error = String;

    fn try_from(value: DaysOrText) -> Result<Self, String> {
        let too_long = || format!("is longer than {DAYS_MAX} days: write fewer");
        let no_life = |given: &str| {
            let shown: String = given.chars().take(SHOWN_MAX).collect();
            format!(
                "`{}` is no life of a certificate: write a number of days, as 365, or a time with its unit, as 720h",
                shown.escape_debug()
            )
        };
        match value {
            DaysOrText::Days(days) if days <= DAYS_MAX => Ok(SigningDuration::days(days)),
            DaysOrText::Days(_) => Err(too_long()),
            DaysOrText::Text(text) => match text.parse::<u64>() {
                Ok(days) => DaysOrText::Days(days).try_into(),
                Err(_) => {
                    let KubeletDuration(life) =
                        KubeletDuration::from_str(&text).map_err(|_| no_life(&text))?;
                    if life.as_secs() > DAYS_MAX * DAY { Err(too_long()) } else { Ok(SigningDuration(life)) }
                }
            },
            DaysOrText::Other(other) => Err(no_life(&other.to_string())),
        }
    }
}

impl From<SigningDuration> for DaysOrText {
    fn from(SigningDuration(life): SigningDuration) -> Self {
        if life.subsec_nanos() == 0 && life.as_secs().is_multiple_of(DAY) {
            DaysOrText::Days(life.as_secs() / DAY)
        } else {
            DaysOrText::Text(KubeletDuration(life).to_string())
        }
    }
}

/// How long certificates of a cluster live, and how long two CAs are trusted beside each other.
pub(crate) struct Lives {
    pub(crate) edge: SigningDuration,
    pub(crate) edge_grace: SigningDuration,
    pub(crate) server: SigningDuration,
    pub(crate) ca: SigningDuration,
    pub(crate) ca_lead: SigningDuration,
}

impl Lives {
    pub(crate) fn check(&self, defects: &mut Vec<Defect>) {
        for (key, life) in [
            ("modules.cloudHub.edgeCertSigningDuration", self.edge),
            ("modules.cloudHub.serverCertSigningDuration", self.server),
            ("modules.cloudHub.caLeadDuration", self.ca_lead),
        ] {
            if life.0 < LEAST {
                defects.push(Defect::new(key, "is less than 1m: write a number of days, or a time as 720h"));
            }
        }
        let beside = self.ca_lead.0 + self.edge.0 + self.edge_grace.0;
        if self.ca.0 < 2 * beside {
            let what = format!(
                "is less than twice caLeadDuration, edgeCertSigningDuration and edgeCertGraceDuration together ({}): its successor would \
                 end before nodes know it",
                KubeletDuration(2 * beside)
            );
            defects.push(Defect::new("modules.cloudHub.caSigningDuration", what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<SigningDuration, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_is_of_days_and_a_text_is_a_time() {
        assert_eq!(read("30"), Ok(SigningDuration::days(30)));
        assert_eq!(read("\"30\""), Ok(SigningDuration::days(30)));
        assert_eq!(read("10m"), Ok(SigningDuration(Duration::from_secs(600))));
        assert_eq!(read("720h"), Ok(SigningDuration::days(30)));
        for wrong in ["-1", "36501", "1000000h", "soon", "\"\"", "[]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for wrong in ["10x", "-1", "1.5", "soon"] {
            let told = read(wrong).unwrap_err();
            assert!(told.contains("write a number of days"), "{wrong}: {told}");
        }
        let written = |life| serde_json::to_string(&life).unwrap();
        assert_eq!(written(SigningDuration::days(30)), "30");
        assert_eq!(written(SigningDuration(Duration::from_secs(600))), "\"10m\"");
    }

    #[test]
    fn lives_that_do_not_fit_together_are_named() {
        let day = SigningDuration::days(1);
        let told = |edge, ca| {
            let mut defects = Vec::new();
            Lives { edge, edge_grace: day, server: day, ca, ca_lead: day }.check(&mut defects);
            defects.into_iter().map(|defect| defect.key).collect::<Vec<_>>()
        };
        assert_eq!(told(day, SigningDuration::days(6)), [] as [&str; 0]);
        assert_eq!(told(day, SigningDuration::days(5)), ["modules.cloudHub.caSigningDuration"]);
        let short = SigningDuration(Duration::from_secs(59));
        assert_eq!(told(short, SigningDuration::days(6)), ["modules.cloudHub.edgeCertSigningDuration"]);
    }
}
