//! What is known of flows beside what their exporters say ([`radarflow_reconcile::flows`]), where they are decoded.
//!
//! What rules tell of an interface is remembered, and what files tell of an address: they are asked again when an interface is called
//! otherwise, and when tables change. It follows from these, so that nothing of it is in snapshots.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::flow::Flow;
use radarflow_proto::flow::tables::{Enriched, ExporterEntry, FlowTables, Interface, Place};
use radarflow_proto::packet::Tunnels;
use radarflow_reconcile::flows::places::{self, AddressBook};
use radarflow_reconcile::flows::{Knowledge, View};

use super::At;
use super::shelf::Shelf;

/// Interfaces, and exporters that have some, that are remembered; beyond them all are forgotten, and asked for again.
const MAX_INTERFACES: usize = 16_384;
/// Of one exporter; beyond them its are forgotten.
const MAX_OF_EXPORTER: usize = 1024;

/// Addresses of which it is remembered what files tell; beyond them all are forgotten, and asked for again.
const MAX_PLACES: usize = 16_384;

/// What rules told of an interface, and what it was called then.
struct Told {
    name: String,
    description: String,
    interface: Option<Interface>,
}

/// Whose interfaces: tenant, partition, exporter.
type Exporter = (String, String, IpAddr);

/// What is known of flows.
pub(super) struct Enrichment {
    shelf: Arc<Shelf>,
    knowledge: Knowledge,
    interfaces: BTreeMap<Exporter, BTreeMap<u32, Told>>,
    remembered: usize,
    books: Books,
}

/// What files tell of addresses.
#[derive(Default)]
struct Books {
    books: Vec<Arc<AddressBook>>,
    places: BTreeMap<IpAddr, Option<Place>>,
}

impl Books {
    /// Makes known where addresses are.
    fn ask(&mut self, ips: [Option<IpAddr>; 2]) {
        if self.places.len() + ips.len() > MAX_PLACES {
            self.places.clear();
        }
        for ip in ips.into_iter().flatten() {
            let books = self.books.iter().map(|book| &**book);
            self.places.entry(ip).or_insert_with(|| places::find(books, ip));
        }
    }

    fn place(&self, ip: Option<IpAddr>) -> Option<&Place> {
        self.places.get(&ip?)?.as_ref()
    }
}

/// What is known of the flows of one message.
pub(super) struct Enriching<'a> {
    view: View<'a>,
    exporter: Option<&'a ExporterEntry>,
    interfaces: Option<&'a mut BTreeMap<u32, Told>>,
    remembered: &'a mut usize,
    books: &'a mut Books,
}

impl Enrichment {
    /// Nothing is known, and where files are.
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        let (knowledge, interfaces, books) = (Knowledge::default(), BTreeMap::new(), Books::default());
        Enrichment { shelf, knowledge, interfaces, remembered: 0, books }
    }

    /// From now on this is known.
    pub(super) fn learn(&mut self, tables: &FlowTables) {
        let books = tables.address_files.iter().filter_map(|file| self.shelf.find(file)).collect();
        *self = Enrichment {
            knowledge: Knowledge::new(tables),
            books: Books { books, places: BTreeMap::new() },
            ..Enrichment::new(self.shelf.clone())
        };
    }

    /// What is known of the flows that an exporter sends, if anything is.
    pub(super) fn of<'a>(&'a mut self, at: &'a At<'_>, exporter: IpAddr) -> Option<Enriching<'a>> {
        if self.remembered > MAX_INTERFACES {
            self.interfaces.clear();
            self.remembered = 0;
        }
        let view = self.knowledge.of(&at.origin.tenant, at.partition(), !self.books.books.is_empty())?;
        let (tenant, partition) = at.scope();
        let remembered = &mut self.remembered;
        let interfaces = view.knows_interfaces().then(|| {
            self.interfaces.entry((tenant, partition, exporter)).or_insert_with(|| {
                *remembered += 1;
                BTreeMap::new()
            })
        });
        let (remembered, books) = (&mut self.remembered, &mut self.books);
        Some(Enriching { view, exporter: view.exporter(exporter), interfaces, remembered, books })
    }
}

impl Enriching<'_> {
    /// What is entered of the packets that the exporter samples.
    pub(super) fn tunnels(&self) -> Tunnels {
        let named = self.exporter.and_then(|exporter| exporter.decapsulate.as_ref());
        named.and_then(|names| Tunnels::named(names).ok()).unwrap_or(Tunnels::ALL)
    }

    /// What is known of a flow.
    pub(super) fn flow(&mut self, flow: &Flow) -> Enriched<'_> {
        self.ask(flow.in_if, &flow.in_if_name, &flow.in_if_description);
        self.ask(flow.out_if, &flow.out_if_name, &flow.out_if_description);
        if !self.books.books.is_empty() {
            self.books.ask([flow.src_ip, flow.dst_ip]);
        }
        let books = &*self.books;
        let (src_place, dst_place) = (books.place(flow.src_ip), books.place(flow.dst_ip));
        let interfaces = self.interfaces.as_deref();
        let interface = |index: Option<u32>| interfaces?.get(&index?)?.interface.as_ref();
        let network = |ip: Option<IpAddr>| ip.and_then(|ip| self.view.network(ip));
        Enriched {
            exporter: self.exporter,
            in_if: interface(flow.in_if),
            out_if: interface(flow.out_if),
            src_net: network(flow.src_ip),
            dst_net: network(flow.dst_ip),
            src_place,
            dst_place,
            src_as_name: as_name(self.view, flow.src_as, src_place),
            dst_as_name: as_name(self.view, flow.dst_as, dst_place),
            app: flow.protocol.and_then(|protocol| self.view.application(protocol, flow.src_port, flow.dst_port)),
        }
    }

    /// Asks the rules of an interface, unless they told of it as it is called now. The exporter itself is called 0.
    fn ask(&mut self, index: Option<u32>, name: &str, description: &str) {
        let (Some(interfaces), Some(index @ 1..)) = (&mut self.interfaces, index) else { return };
        let known = interfaces.get(&index).is_some_and(|told| told.name == name && told.description == description);
        if !known {
            let interface = self.view.interface(self.exporter, index, name, description);
            let told = Told { name: name.to_owned(), description: description.to_owned(), interface };
            if interfaces.len() >= MAX_OF_EXPORTER {
                *self.remembered -= interfaces.len();
                interfaces.clear();
            }
            *self.remembered += usize::from(interfaces.insert(index, told).is_none());
        }
    }
}

/// What an autonomous system is called: by the tables, or else by the file that has its number.
fn as_name<'a>(view: View<'a>, said: Option<u32>, place: Option<&'a Place>) -> Option<&'a str> {
    let number = Enriched::as_number(said, place)?;
    let of_files = || place.filter(|place| place.as_number == Some(number))?.as_name.as_deref();
    view.as_name(number).or_else(of_files)
}
