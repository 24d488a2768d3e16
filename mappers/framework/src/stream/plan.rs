//! What of a stream is saved: the keys of KubeEdge's framework, and ours. Pure.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::InvalidSetting;
use crate::settings::Settings;

/// What is done with a stream, by the property's name in KubeEdge.
const SAVE_FRAME: &str = "saveFrame";
const SAVE_VIDEO: &str = "saveVideo";
/// 100: files of one property that are kept, unless `keep` says otherwise.
const KEPT: i64 = 100;
/// 10,000: the files of one property that are kept at most.
const KEPT_MAX: i64 = 10_000;
/// 100,000: frames of one round or film at most.
const FRAMES_MAX: i64 = 100_000;
/// A day: neither a pause between frames nor one between rounds is longer.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// 100 ms: a round does not begin sooner after the one before.
const REPEAT_MIN: i64 = 100;

/// What of a stream is saved, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPlan {
    /// Files with one frame each, or films.
    pub(crate) is_film: bool,
    /// The ending of the files, in small letters.
    pub(crate) format: String,
    /// The folder, as it is written.
    pub(crate) folder: PathBuf,
    /// Pictures of a round, or frames of a film.
    pub(crate) frames: u32,
    /// Films of a round.
    pub(crate) films: u32,
    /// Between two frames.
    pub(crate) interval: Duration,
    /// From the begin of a round to that of the next. None: there is one round.
    pub(crate) repeat: Option<Duration>,
    /// So many files stay; older ones are removed.
    pub(crate) keep: usize,
}

impl StreamPlan {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub(crate) fn read(property: &str, settings: &Settings) -> Result<Self, InvalidSetting> {
        let save = settings.text("save")?.unwrap_or_default().to_ascii_lowercase();
        let is_film = match save.as_str() {
            "frame" => false,
            "video" => true,
            "" if property.eq_ignore_ascii_case(SAVE_FRAME) => false,
            "" if property.eq_ignore_ascii_case(SAVE_VIDEO) => true,
            _ => {
                return Err(InvalidSetting::new(format!(
                    "call the property {SAVE_FRAME} or {SAVE_VIDEO}, or write `save`: frame or video"
                )));
            }
        };
        let format = settings.text("format")?.unwrap_or_default();
        let format = format.trim_start_matches('.').to_ascii_lowercase();
        if format.is_empty() || format.len() > 8 || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let sentence =
                "setting `format` is missing or no ending of a file; write jpg, or mjpeg for a video";
            return Err(InvalidSetting::new(sentence));
        }
        let folder = settings.text("outputDir")?.unwrap_or_default();
        if folder.is_empty() || folder.contains('\0') {
            return Err(InvalidSetting::new(
                "setting `outputDir` is missing; write a folder of the node, below the mapper's `common.stream_dir`",
            ));
        }
        let frames = settings.whole_within("frameCount", 1, 1..=FRAMES_MAX)?;
        let films = settings.whole_within("videoNum", 1, 1..=KEPT_MAX)?;
        let nanos = settings.whole_within("frameInterval", 0, 0..=i64::MAX)?;
        let interval = Duration::from_nanos(nanos);
        if interval > PAUSE_MAX {
            return Err(InvalidSetting::new(format!(
                "setting `frameInterval` is {nanos} nanoseconds, which is more than a day"
            )));
        }
        let longest = i64::try_from(PAUSE_MAX.as_millis()).unwrap_or(i64::MAX);
        let repeat = match settings.text("repeatMs")? {
            None => None,
            Some(_) => Some(Duration::from_millis(settings.whole_within(
                "repeatMs",
                REPEAT_MIN,
                REPEAT_MIN..=longest,
            )?)),
        };
        Ok(StreamPlan {
            is_film,
            format,
            folder: folder.into(),
            frames,
            films,
            interval,
            repeat,
            keep: settings.whole_within("keep", KEPT, 1..=KEPT_MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    fn plan(property: &str, pairs: &[(&str, &str)]) -> Result<StreamPlan, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        StreamPlan::read(property, &Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn kubeedges_keys_are_read() {
        let keys = [
            ("format", "jpg"),
            ("outputDir", "/tmp/case/"),
            ("frameCount", "30"),
            ("frameInterval", "1000000"),
            ("videoNum", "2"),
        ];
        let wanted = StreamPlan {
            is_film: false,
            format: "jpg".to_owned(),
            folder: "/tmp/case/".into(),
            frames: 30,
            films: 2,
            interval: Duration::from_millis(1),
            repeat: None,
            keep: 100,
        };
        assert_eq!(plan("saveFrame", &keys), Ok(wanted.clone()));
        assert_eq!(plan("SAVEVIDEO", &keys), Ok(StreamPlan { is_film: true, ..wanted }));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let good = [("format", "jpg"), ("outputDir", "/streams")];
        for (property, more, said) in [
            ("door", None, "`save`"),
            ("saveFrame", Some(("save", "sound")), "`save`"),
            ("saveFrame", Some(("format", "../x")), "`format`"),
            ("saveFrame", Some(("outputDir", "")), "`outputDir`"),
            ("saveFrame", Some(("frameCount", "0")), "`frameCount`"),
            ("saveFrame", Some(("frameInterval", "90000000000000")), "more than a day"),
            ("saveVideo", Some(("videoNum", "-1")), "`videoNum`"),
            ("saveVideo", Some(("keep", "0")), "`keep`"),
            ("saveVideo", Some(("repeatMs", "1")), "`repeatMs`"),
        ] {
            let keys: Vec<_> = good
                .into_iter()
                .filter(|(key, _)| more.is_none_or(|(of, _)| of != *key))
                .chain(more)
                .collect();
            let refusal = plan(property, &keys).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
