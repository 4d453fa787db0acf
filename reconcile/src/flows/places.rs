//! Where an address is, and whose, by files of the MaxMind form: their own of countries, cities and autonomous systems, and those of
//! others that have the same fields.

use std::net::IpAddr;

use bytes::Bytes;
use maxminddb::Reader;
use radarflow_proto::flow::tables::Place;
use serde::Deserialize;

/// Octets of a name that are kept.
const MAX_NAME: usize = 128;

/// A file.
pub struct AddressBook {
    name: String,
    reader: Reader<Bytes>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    registered_country: Option<Country<'a>>,
    city: Option<City<'a>>,
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<&'a str>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct City<'a> {
    #[serde(borrow)]
    names: Option<Names<'a>>,
}

#[derive(Deserialize)]
struct Names<'a> {
    en: Option<&'a str>,
}

impl AddressBook {
    /// Reads a file that is called so.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn new(name: &str, bytes: Bytes) -> Result<Self, String> {
        let reader = Reader::from_source(bytes).map_err(|error| format!("no file of the MaxMind form: {error}"))?;
        Ok(AddressBook { name: name.to_owned(), reader })
    }
}

/// What files tell of an address, the first one first, if any does.
pub fn find<'a>(files: impl Iterator<Item = &'a AddressBook>, ip: IpAddr) -> Option<Place> {
    let text = |text: Option<&str>| {
        let text = text.filter(|text| !text.is_empty())?;
        Some(text[..text.floor_char_boundary(MAX_NAME)].to_owned())
    };
    let mut place = Place::default();
    for file in files {
        let Ok(looked) = file.reader.lookup(ip) else { continue };
        let Ok(Some(found)) = looked.decode::<Found<'_>>() else { continue };
        let before = place.clone();
        let code = |of: Option<Country<'_>>| of.and_then(|country| text(country.iso_code));
        place.country = place.country.or_else(|| code(found.country)).or_else(|| code(found.registered_country));
        place.city = place.city.or_else(|| text(found.city?.names?.en));
        if place.as_number.is_none() {
            place.as_number = found.autonomous_system_number;
            place.as_name = text(found.autonomous_system_organization);
        }
        if place != before {
            place.files =
                if place.files.is_empty() { file.name.clone() } else { format!("{}, {}", place.files, file.name) };
        }
    }
    (!place.files.is_empty()).then_some(place)
}

#[cfg(test)]
mod tests {
    use radarflow_network::addresses::{Value, file};

    use super::*;

    fn book(name: &str, entries: &[(&str, Value)]) -> AddressBook {
        AddressBook::new(name, file(entries).into()).unwrap()
    }

    #[test]
    fn of_each_column_the_first_file_that_has_it_counts() {
        let text = |text: &str| Value::Text(text.to_owned());
        let names = |name: &str| Value::map([("names", Value::map([("de", text("x")), ("en", text(name))]))]);
        let country = |code: &str| Value::map([("iso_code", text(code)), ("geoname_id", Value::Number(7))]);
        let cities = book(
            "city.mmdb",
            &[
                ("192.0.2.0/24", Value::map([("country", country("DE")), ("city", names("Bonn"))])),
                ("198.51.100.0/25", Value::map([("registered_country", country("FR"))])),
                (
                    "2001:db8::/32",
                    Value::map([
                        ("country", country("NL")),
                        ("location", Value::map([("latitude", Value::Float(52.3))])),
                    ]),
                ),
            ],
        );
        let systems = book(
            "asn.mmdb",
            &[(
                "192.0.2.0/25",
                Value::map([
                    ("autonomous_system_number", Value::Number(64_496)),
                    ("autonomous_system_organization", text("Example")),
                    ("country", country("US")),
                ]),
            )],
        );
        let both = [cities, systems];
        let of = |ip: &str| {
            let place = find(both.iter(), ip.parse().unwrap())?;
            let Place { country, city, as_number, as_name, files } = place;
            Some((country.unwrap_or_default(), city.unwrap_or_default(), as_number, as_name.unwrap_or_default(), files))
        };
        let told = |country: &str, city: &str, number, name: &str, files: &str| {
            Some((country.to_owned(), city.to_owned(), number, name.to_owned(), files.to_owned()))
        };
        assert_eq!(of("192.0.2.1"), told("DE", "Bonn", Some(64_496), "Example", "city.mmdb, asn.mmdb"));
        assert_eq!(of("192.0.2.200"), told("DE", "Bonn", None, "", "city.mmdb"));
        assert_eq!(of("198.51.100.9"), told("FR", "", None, "", "city.mmdb"));
        assert_eq!(of("2001:db8::9"), told("NL", "", None, "", "city.mmdb"));
        assert_eq!((of("198.51.100.200"), of("203.0.113.1"), of("2001:db9::1")), (None, None, None));
    }

    #[test]
    fn what_is_no_such_file_is_told_and_nothing_in_one_panics() {
        assert!(AddressBook::new("x", Bytes::from_static(b"no file")).is_err_and(|why| why.contains("MaxMind")));
        let whole =
            file(&[("192.0.2.0/24", Value::map([("country", Value::map([("iso_code", Value::Text("DE".into()))]))]))]);
        for at in 0..whole.len() {
            for bit in [1u8, 0x40, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= bit;
                if let Ok(book) = AddressBook::new("x", changed.into()) {
                    let _ = find(std::iter::once(&book), "192.0.2.1".parse().unwrap());
                }
            }
        }
        // A name is as long as it is, and kept as long as it may be.
        let long = Value::map([("country", Value::map([("iso_code", Value::Text("ü".repeat(300)))]))]);
        let place = find(std::iter::once(&book("x", &[("0.0.0.0/0", long)])), "192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(place.country.unwrap().len(), MAX_NAME);
    }
}
