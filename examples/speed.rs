use qstar::models::*; use qstar::train::*; use qstar::tasks::*; use qstar::tasks::micro::*;
fn main(){ unsafe{std::env::set_var("CANDLE_NUM_THREADS","1")}; qstar::machine::keep_memory();
 let args:Vec<String>=std::env::args().collect(); let lr:f64=args[1].parse().unwrap(); let n:usize=args[2].parse().unwrap(); let layers:usize=args[3].parse().unwrap(); let batch:usize=args[4].parse().unwrap();let heads:usize=args[5].parse().unwrap();
 let fam:Option<u64>=args.get(6).map(|x|x.parse().unwrap());
 let world=MicroWorld::new().unwrap();
 let c=Gpt2Config{vocab_size:world.vocab_size(),n_positions:38,n_embd:96,n_layer:layers,n_head:heads,..Default::default()};
 let m=LanguageModel::new(Config::Gpt2(c),1).unwrap(); println!("params {}",m.params.count());
 qstar::machine::in_parallel(1,vec![0],|_|{
 let t=std::time::Instant::now(); 
 let l=train_supervised(&m,&Supervised{steps:n,batch,learning_rate:lr,warmup_steps:50},"x",|i|{let i=match fam{Some(f)=>i*5+f,None=>i};let p=world.prompt(Split::Train,i);let a=world.demonstration(&p,Quality::Clean,0);(p.tokens,a)}).unwrap();
 println!("{args:?} loss {l:.4} {:.1} ms a step", t.elapsed().as_secs_f64()*1e3/n as f64);
 let net=m.frozen().unwrap(); let s=evaluate(&world,&net,&net,500,1,0,0).unwrap().samples;
 for f in Family::ALL { let r:Vec<f64>=s.iter().filter(|x|x.family==f.name()).map(|x|x.reward).collect(); print!("{} {:.3}  ",f.name(),r.iter().sum::<f64>()/r.len() as f64); } println!();
 Ok(()) }).unwrap();
}
