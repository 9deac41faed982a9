use crate::{Cell, Report};

/// The cells of one workload under one load: a backend a line, a size a column.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) workload: &'a str,
    pub(super) clients: usize,
    pub(super) rate: Option<f64>,
    cells: Vec<&'a Cell>,
}

impl<'a> View<'a> {
    /// All views of a report, in its order.
    pub(super) fn all(report: &'a Report) -> Vec<Self> {
        let mut views: Vec<Self> = Vec::new();
        for cell in &report.cells {
            match views.iter_mut().find(|view| view.has(cell)) {
                Some(view) => view.cells.push(cell),
                None => views.push(Self {
                    workload: &cell.workload,
                    clients: cell.clients,
                    rate: cell.rate,
                    cells: vec![cell],
                }),
            }
        }
        views
    }

    fn has(&self, cell: &Cell) -> bool {
        (self.workload, self.clients, self.rate.map(f64::to_bits))
            == (cell.workload.as_str(), cell.clients, cell.rate.map(f64::to_bits))
    }

    /// What the view is of.
    pub(super) fn title(&self) -> String {
        let clients = if self.clients == 1 { "1 client".to_owned() } else { format!("{} clients", self.clients) };
        match self.rate {
            None => format!("{}, {clients}", self.workload),
            Some(rate) => format!("{}, {clients}, {rate} a second", self.workload),
        }
    }

    /// The sizes, smallest first.
    pub(super) fn nodes(&self) -> Vec<usize> {
        let mut nodes: Vec<_> = self.cells.iter().map(|cell| cell.nodes).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The backends, in the report's order.
    pub(super) fn backends(&self) -> Vec<&'a str> {
        let mut backends: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !backends.contains(&cell.backend.as_str()) {
                backends.push(&cell.backend);
            }
        }
        backends
    }

    pub(super) fn cell(&self, backend: &str, nodes: usize) -> Option<&'a Cell> {
        self.cells.iter().copied().find(|cell| cell.backend == backend && cell.nodes == nodes)
    }

    /// The size at which most can be seen: three nodes if that was measured, since it is the smallest that survives a loss.
    pub(super) fn usual_nodes(&self) -> Option<usize> {
        let nodes = self.nodes();
        nodes.iter().copied().find(|nodes| *nodes == 3).or(nodes.last().copied())
    }
}
