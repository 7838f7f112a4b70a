//! Fields of a record of the log, which only the journal shows.

use log::kv::{self, Key, Source, Value, VisitSource};
use serde::Serialize;
use serde_json::Value as Json;

/// Longer values are left out.
const LONGEST: usize = 4096;

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// One for each key of a document: `fill_ratio` becomes `CTGUARD_FILL_RATIO`. What is no text is
    /// JSON.
    pub(crate) fn of(document: &impl Serialize) -> Self {
        let Ok(Json::Object(document)) = serde_json::to_value(document) else {
            return Self::default();
        };
        let field = |(key, value): (String, Json)| {
            let value = match value {
                Json::Null => return None,
                Json::String(text) => text,
                value @ (Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => {
                    value.to_string()
                }
            };
            let is_short = value.len() <= LONGEST;
            is_short.then(|| (format!("CTGUARD_{}", key.to_uppercase()), value))
        };
        Self(document.into_iter().filter_map(field).collect())
    }
}

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        self.0.iter().try_for_each(|(key, value)| {
            visitor.visit_pair(Key::from_str(key), Value::from(&value[..]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::What;

    #[test]
    fn an_event_has_a_field_for_each_of_its_keys() {
        let interfaces = vec!["wan0".to_owned(), "wan1".to_owned()];
        let fields = Fields::of(&What::Started { interfaces });
        let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            fields.0,
            [field("CTGUARD_EVENT", "started"), field("CTGUARD_INTERFACES", r#"["wan0","wan1"]"#)]
        );
        let error = "x".repeat(LONGEST + 1);
        let long = Fields::of(&What::HookFailed { incident: 3, error });
        assert_eq!(long.0.len(), 2, "{long:?}");
    }
}
