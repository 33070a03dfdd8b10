//! A whole drive: its gate, its wire, its process.

#[cfg(test)]
mod control;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod network;
#[cfg(test)]
mod process;
#[cfg(test)]
mod space;
#[cfg(test)]
mod vendor;
