//! Networks as files have them: CSV, with the names of [`NetworkEntry`]'s fields in the first line, of which only `prefix` must
//! be there.

use radarflow_proto::flow::tables::NetworkEntry;

/// Reads a file.
///
/// # Errors
/// What is wrong, with the line.
pub fn networks(csv: &str) -> Result<Vec<NetworkEntry>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(csv.as_bytes());
    reader.deserialize().collect::<Result<_, csv::Error>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_fields() {
        let csv = "prefix,name,country\n# ours\n10.0.0.0/8, office ,\n2001:db8::/32,\"lab, new\",DE\n";
        let read = networks(csv).unwrap();
        let of = |n: &NetworkEntry| (n.tenant.clone(), n.prefix.clone(), n.name.clone(), n.country.clone());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(&read[0]), ("default".into(), "10.0.0.0/8".into(), text("office"), None));
        assert_eq!(of(&read[1]), ("default".into(), "2001:db8::/32".into(), text("lab, new"), text("DE")));
        assert!(networks("prefix,colour\n10.0.0.0/8,red\n").unwrap_err().contains("unknown field `colour`"));
        assert!(networks("prefix\n10.0.0.0/8\n10.0.0.0/8,b\n").unwrap_err().contains("line: 3"));
    }
}
