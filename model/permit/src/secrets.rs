//! Values that people are not shown: those of environment variables that come from a Secret.

use serde_json::Value;

/// What stands in the place of a value.
pub const MASK: &str = "(secret)";
/// A shorter value is taken out where it is the whole text only: inside others it would be found by chance.
const LEAST_PART_BYTES: usize = 4;
/// Where a request holds environments.
const ENVIRONMENTS: [&str; 2] = ["/OCI/Process/Env", "/process/Env"];

/// Names of the variables, and their values.
#[derive(Clone, Default)]
pub struct Secrets {
    names: Vec<String>,
    /// Longest first, so that a value that holds another one goes as a whole.
    values: Vec<String>,
}

impl Secrets {
    /// The variables of these names, with the values that they have in a request.
    pub fn of(names: &[String], request: &Value) -> Self {
        let entries = ENVIRONMENTS.iter().filter_map(|place| request.pointer(place)?.as_array());
        let entries = entries.flatten().filter_map(|entry| entry.as_str()?.split_once('='));
        let mut values: Vec<String> = entries
            .filter(|(name, value)| !value.is_empty() && names.iter().any(|known| known == name))
            .map(|(_, value)| value.to_owned())
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { names: names.to_vec(), values }
    }

    /// Whether the variable's value is not shown.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// A text of a request as people may see it: `NAME=(secret)` for the variables themselves, and their values taken
    /// out of every other text, such as a command line.
    pub fn mask_text(&self, text: &str) -> String {
        if let Some((name, _)) = text.split_once('=').filter(|(name, _)| self.has(name)) {
            return format!("{name}={MASK}");
        }
        self.values.iter().fold(text.to_owned(), |text, value| match value.len() {
            LEAST_PART_BYTES.. => text.replace(value.as_str(), MASK),
            _ if text == *value => MASK.to_owned(),
            _ => text,
        })
    }

    /// The same for every text of a value.
    pub fn mask(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mask_text(text)),
            Value::Array(values) => values.iter().map(|value| self.mask(value)).collect(),
            Value::Object(map) => {
                let masked = map.iter().map(|(key, value)| (key.clone(), self.mask(value)));
                Value::Object(masked.collect())
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attack_a_secret_does_not_leave_by_its_variable_nor_by_what_it_was_expanded_into() {
        let env = json!({ "OCI": { "Process": { "Env": ["A=1", "PW=hush-hush", "PIN=12"] } } });
        let secrets = Secrets::of(&["PW".to_owned(), "PIN".to_owned()], &env);
        let check = |found: Value, expect: Value| assert_eq!(secrets.mask(&found), expect);
        check(json!(["A=1", "PW=hush-hush"]), json!(["A=1", "PW=(secret)"]));
        check(json!("PW=another"), json!("PW=(secret)"));
        check(json!({ "k": ["--db=x:hush-hush@y"] }), json!({ "k": ["--db=x:(secret)@y"] }));
        check(json!(["12", "120", 12]), json!(["(secret)", "120", 12]));
    }
}
