//! throw-away
use std::io::Write;
use std::sync::Arc;
use accel_core::{EngineVcpu, Exclusive, Vcpu};
use control_options::Topology;
use hw_core::{Fabric, Links, Clock};
use machine_x86::*;
struct Tcg { model: Arc<target_x86::system::CpuModel>, topo: target_x86::system::Topology, ex: Arc<Exclusive> }
impl Accelerator for Tcg {
    fn name(&self) -> &'static str { "TCG" }
    fn irqchip(&self) -> Irqchip { Irqchip::User }
    fn attach(&self, _: &Fabric) -> Result<(), String> { Ok(()) }
    fn tsc_hz(&self) -> u64 { self.model.tsc_hz }
    fn cpu(&self, w: CpuWires) -> Result<Box<dyn Vcpu>, String> {
        let core = target_x86::system::new_core(w.index, self.model.clone(), self.topo, w.port, w.fabric.memory.clone(), w.clock);
        Ok(Box::new(EngineVcpu::<target_x86::X86, accel_interp::Interp>::new(core, Default::default(), self.ex.clone())))
    }
}
struct Out;
impl device_serial::Line for Out {
    fn write(&self, b: &[u8]) -> usize { let mut o = std::io::stdout(); let _ = o.write_all(b); let _ = o.flush(); b.len() }
    fn accept_input(&self) {}
    fn attach(&self, _: Arc<device_serial::Inbox>) {}
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let cpus: u32 = std::env::var("CPUS").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let file = |p: &str| FileSpec { path: p.into(), bytes: std::fs::read(p).unwrap().into() };
    let secs: u64 = std::env::var("SECS").ok().and_then(|v| v.parse().ok()).unwrap_or(30);
    let mut ev = runtime::EventLoop::new().unwrap();
    let clock = Clock::new(Arc::new(hw_clock::HostTime::default()));
    let mut links = Links::default();
    links.offer::<Box<dyn device_serial::Line>>("chardev", "s0", Box::new(Out));
    let def = find(&a[1]).unwrap();
    let spec = PcSpec { machine: def, props: vec![], memory: 512 << 20,
        topology: Topology { cpus, maxcpus: cpus, drawers: 1, books: 1, sockets: 1, dies: 1, modules: 1, clusters: 1, cores: cpus, threads: 1 },
        kernel: a.get(2).filter(|s| !s.is_empty()).map(|s| file(s)), initrd: a.get(3).map(|s| file(s)), append: a.get(4).cloned().unwrap_or_default(),
        bios: None, firmware_dirs: vec![], serials: vec![Some("s0".into())], parallels: vec![], devices: vec![], rtc: Default::default(), boot: Default::default(), fw_cfg: vec![], smbios: vec![], uuid: None, nographic: true };
    let (model, _) = target_x86::system::CpuModel::parse(&std::env::var("CPU").unwrap_or("qemu64".into()), &target_x86::system::feature::engine(), false).unwrap();
    let topo = target_x86::system::Topology::default();
    let accel = Arc::new(Tcg { model: Arc::new(model), topo, ex: Default::default() });
    let board = match build(&spec, accel, &mut links, ev.handle(), clock.clone()) { Ok(b) => b, Err(e) => { eprintln!("{e}"); std::process::exit(1) } };
    let m = board.machine.clone();
    m.on_event(|e| eprintln!("event {e:?}"));
    m.power_on();
    m.start();
    let h = ev.handle();
    clock.queue().set_waker(move || h.post(|| {}));
    let t0 = std::time::Instant::now();
    loop {
        let next = clock.run_timers();
        let wait = next.map(|n| std::time::Duration::from_nanos(n.saturating_sub(clock.now_ns()))).unwrap_or(std::time::Duration::from_millis(100)).min(std::time::Duration::from_millis(100));
        ev.turn(Some(wait));
        if t0.elapsed().as_secs() > secs || m.state() != control_qapi::RunState::Running { break; }
    }
    m.stop(control_qapi::RunState::Paused);
    for c in m.cpus() { c.with(|c| eprintln!("{}\n{}", c.describe(), c.report("jit").unwrap_or_default())); }
    std::process::exit(0);
}
