//! Options of one statement: `SET name = value; SELECT ...`, or the request's own map.

use crate::names::nearest;
use crate::request::BrokerOptions;
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_proto::{Error, Result};

/// The options a statement runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryOptions {
    /// `timeoutMs`.
    pub(crate) timeout: Option<Duration>,
    /// `memoryBytesMax`; never more than the broker's own limit.
    pub(crate) memory_bytes_max: usize,
    /// `usePlanCache`: whether a kept plan may answer.
    pub(crate) use_plan_cache: bool,
    /// `useLeafPushdown`: false keeps filters and aggregation out of the leaf. Answers stay the same.
    pub(crate) use_leaf_pushdown: bool,
    /// `skipUpsert`: whether rows count that newer ones of their keys have superseded.
    pub(crate) skip_upsert: bool,
}

const NAMES: [&str; 7] = [
    "timeoutMs",
    "memoryBytesMax",
    "usePlanCache",
    "useLeafPushdown",
    "skipUpsert",
    "enableNullHandling",
    "useMultistageEngine",
];

impl QueryOptions {
    /// The broker's defaults.
    pub(crate) fn new(limits: &BrokerOptions) -> Self {
        Self {
            timeout: None,
            memory_bytes_max: limits.query_memory_bytes_max,
            use_plan_cache: true,
            use_leaf_pushdown: true,
            skip_upsert: false,
        }
    }

    /// Sets all of a request's options.
    pub(crate) fn set_all(&mut self, options: &BTreeMap<String, String>) -> Result<()> {
        options
            .iter()
            .try_for_each(|(name, value)| self.set(name, value))
    }

    /// Sets one option by its name, upper or lower case alike.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let Some(known) = NAMES.iter().find(|n| n.eq_ignore_ascii_case(name)) else {
            return Err(Error::invalid(format!(
                "no option {name:?}{}",
                nearest(name, NAMES)
            )));
        };
        match *known {
            "timeoutMs" => {
                self.timeout = Some(Duration::from_millis(number(
                    known,
                    value,
                    u64::from(u32::MAX),
                )?))
            }
            "memoryBytesMax" => {
                let asked = usize::try_from(number(known, value, u64::MAX)?).unwrap_or(usize::MAX);
                if asked > self.memory_bytes_max {
                    return Err(Error::invalid(format!(
                        "the option memoryBytesMax is at most {} here, not {asked}",
                        self.memory_bytes_max
                    )));
                }
                self.memory_bytes_max = asked;
            }
            "usePlanCache" => self.use_plan_cache = boolean(known, value)?,
            "useLeafPushdown" => self.use_leaf_pushdown = boolean(known, value)?,
            "skipUpsert" => self.skip_upsert = boolean(known, value)?,
            // Nulls are SQL's nulls and every plan may have many stages.
            "enableNullHandling" => {
                if !boolean(known, value)? {
                    return Err(Error::unsupported(
                        "not supported: enableNullHandling = false; nulls are always SQL's nulls",
                    ));
                }
            }
            _ => {
                boolean(known, value)?;
            }
        }
        Ok(())
    }
}

fn number(name: &str, value: &str, max: u64) -> Result<u64> {
    match value.trim().parse::<u64>() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Error::invalid(format!(
            "the option {name} takes a number from 1 to {max}, not {value:?}"
        ))),
    }
}

fn boolean(name: &str, value: &str) -> Result<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(Error::invalid(format!(
            "the option {name} takes true or false, not {value:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_and_values_are_errors_that_help() {
        let mut options = QueryOptions::new(&BrokerOptions::default());
        options.set("TIMEOUTMS", "250").unwrap();
        assert_eq!(options.timeout, Some(Duration::from_millis(250)));
        assert!(
            options
                .set("timeoutM", "1")
                .unwrap_err()
                .message()
                .contains("did you mean timeoutMs?")
        );
        assert!(
            options.set("timeoutMs", "soon").is_err()
                && options.set("usePlanCache", "maybe").is_err()
        );
        assert!(
            options
                .set("memoryBytesMax", &usize::MAX.to_string())
                .is_err()
        );
    }
}
