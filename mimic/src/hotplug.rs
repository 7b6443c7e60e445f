//! `device_add` and `device_del`: devices that come and go while the machine runs.

use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result, anyhow, bail};
use backend_block::{SharedBlock, Tray};
use control_options::Opts;
use control_options::config::Global;
use control_qapi::{Event, EventBus};
use hw_core::{Args, DeviceClass, Links, Part, PropType};
use machine_core::{Board, DeviceSpec, Leaving};
use runtime::Handle;

use crate::blocks::{BlockControl, User, media};
use crate::build::device_args;
use crate::devices;
use crate::storage::{Storage, Use};

const ADD: &str = "device_add";

/// What plugging devices in and out needs to know.
pub(crate) struct HotPlugControl {
    pub(crate) board: Arc<Board>,
    pub(crate) storage: Storage,
    pub(crate) blocks: Arc<BlockControl>,
    pub(crate) globals: Vec<Global>,
    /// The loops of `-object iothread`.
    pub(crate) io_threads: Vec<(String, Handle)>,
    pub(crate) events: Arc<EventBus>,
    pub(crate) main_loop: Handle,
}

/// What was connected for a device, to be let go of if it is not plugged in after all.
#[derive(Default)]
struct Connected {
    links: Links,
    disk: Option<String>,
    tray: Option<Arc<Tray>>,
    io_thread: Option<Handle>,
}

impl HotPlugControl {
    /// Plugs a device in.
    pub(crate) fn add(&self, opts: &Opts) -> Result<()> {
        let driver = opts.text("driver").unwrap_or_default();
        if driver.is_empty() {
            bail!("Parameter 'driver' is missing");
        }
        let class = devices::creatable(ADD, driver)?;
        let parts = self.board.machine.fabric().parts();
        let is_taken = |path: &str| parts.iter().any(|part| part.path == path);
        let path = match opts.id() {
            Some(id) if is_taken(id) => bail!("Duplicate device ID '{id}'"),
            Some(id) => id.to_owned(),
            None => {
                let mut numbers = 0u32..;
                let mut names = numbers.by_ref().map(|n| format!("{}#hot{n}", class.name));
                names.find(|name| !is_taken(name)).unwrap_or_default()
            }
        };
        // A drive for media that was named none is an empty one.
        let own = format!("#cd-{path}");
        let mut given: Vec<(&str, &str)> = Vec::new();
        let mut links = class.props.iter();
        let medium = links.find(|prop| prop.ty == PropType::Link("medium"));
        if let Some(prop) = medium.filter(|prop| opts.text(prop.name).is_none()) {
            self.storage.drives.push(Tray::new(own.clone(), None));
            given.push((prop.name, own.as_str()));
        }
        let own_keys = ["driver", "id", "bus"];
        let rest = opts.iter().filter(|(key, _)| !own_keys.contains(key));
        given.extend(rest.map(|(key, value)| (key, value.text())));
        let plugged = self.plug(class, opts, &path, &given);
        if plugged.is_err() {
            self.storage.release(&own);
        }
        plugged
    }

    fn plug(
        &self,
        class: &'static DeviceClass,
        opts: &Opts,
        path: &str,
        given: &[(&str, &str)],
    ) -> Result<()> {
        let args = device_args(ADD, &self.globals, class, given)?;
        let mut connected = Connected::default();
        let made = self.connect(&args, &mut connected).and_then(|()| {
            let spec = DeviceSpec {
                class,
                id: Some(path.to_owned()),
                bus: opts.text("bus").map(str::to_owned),
                args,
            };
            Ok(self.board.plug(&spec, path, &mut connected.links)?)
        });
        let part = match made {
            Ok(part) => part,
            Err(error) => {
                drop(connected.links);
                if let Some(id) = connected.disk {
                    self.storage.release(&id);
                }
                return Err(error);
            }
        };
        if let Some(tray) = connected.tray {
            media::tell_moves(&tray, &self.board, &self.events);
        }
        if let Some(server) = connected.io_thread {
            self.board.machine.fabric().serve_by(&part, &server);
        }
        Ok(())
    }

    /// Finds or makes what the properties of a device name.
    fn connect(&self, args: &Args, connected: &mut Connected) -> Result<()> {
        let class = args.class();
        for prop in class.props {
            let (PropType::Link(kind), Some(id)) = (prop.ty, args.text(prop.name)) else {
                continue;
            };
            match kind {
                "drive" => {
                    self.check_free(id)?;
                    let disk = match self.storage.disks.find(|disk| disk.info().id == id) {
                        Some(disk) => disk,
                        None => {
                            let disk = self.connect_node(id, Use::of(args))?;
                            connected.disk = Some(id.to_owned());
                            disk
                        }
                    };
                    connected.links.offer(kind, id, disk);
                }
                "medium" => {
                    self.check_free(id)?;
                    let tray = self.storage.drives.find(|tray| tray.id() == id);
                    let tray = tray.ok_or_else(|| {
                        anyhow!(
                            "Property '{}.{}' can't find value '{id}'",
                            class.name,
                            prop.name
                        )
                    })?;
                    connected.tray = Some(Arc::clone(&tray));
                    connected.links.offer(kind, id, tray);
                }
                "iothread" => {
                    let mut threads = self.io_threads.iter();
                    let found = threads.find(|(name, _)| name == id);
                    let (_, server) = found
                        .with_context(|| format!("there is no iothread with the id '{id}'"))?;
                    connected.io_thread = Some(server.clone());
                }
                _ => bail!(
                    "'{}' cannot be plugged in with '{}={id}' yet: only disks and iothreads are connected while \
                     the machine runs",
                    class.name,
                    prop.name
                ),
            }
        }
        Ok(())
    }

    /// A disk has one user.
    fn check_free(&self, id: &str) -> Result<()> {
        match User::of(&self.board, id) {
            Some(user) => bail!("Drive '{id}' is already in use by device '{}'", user.id),
            None => Ok(()),
        }
    }

    fn connect_node(&self, name: &str, used: Use) -> Result<SharedBlock> {
        let graph = &self.storage.opener.graph;
        let Some(node) = graph.find(name) else {
            bail!("there is no drive or node '{name}'; add it with 'blockdev-add'");
        };
        let disk = self.storage.connect(name, node, used)?;
        self.blocks.watch(&disk, &self.events, &self.main_loop);
        Ok(disk)
    }

    /// Takes a device out, or asks the guest to let go of it.
    pub(crate) fn delete(self: &Arc<Self>, path: &str) -> Result<()> {
        let weak: Weak<Self> = Arc::downgrade(self);
        let (main_loop, released) = (self.main_loop.clone(), path.to_owned());
        let released = Arc::new(move || {
            let (weak, path) = (weak.clone(), released.clone());
            main_loop.post(move || {
                if let Some(control) = weak.upgrade() {
                    control.gone(control.board.take_out(&path));
                }
            });
        });
        if let Leaving::Gone(parts) = self.board.unplug(path, released)? {
            self.gone(parts);
        }
        Ok(())
    }

    /// Lets go of what devices had that are gone, and tells the world.
    fn gone(&self, parts: Vec<Arc<Part>>) {
        for part in parts {
            let links = part.props.iter().filter(|(name, _)| name == "drive");
            for (_, id) in links {
                self.storage.release(id);
            }
            self.events.emit(&Event::DeviceDeleted {
                device: Some(part.path.clone()),
                path: format!("/machine/peripheral/{}", part.path),
            });
        }
    }
}
