import pytest, time
from workbench import train, collect, load_task, build
from workbench.train import TrainConfig
@pytest.mark.parametrize("chat",[False,True])
@pytest.mark.parametrize("family",["qwen3","llama","gpt2"])
def test_x(tiny,family,chat,tmp_path):
    t=time.time(); tiny(family,chat); print("first",time.time()-t)
    t=time.time(); b=tiny(family,chat); print("second",time.time()-t)
    task=load_task("arith-shift")
    m=build("lta-thinker",b)
    ex=task.examples("dev",4)
    p=m.render(ex[0],task)
    print(repr(b.tokenizer.decode(p.before)),repr(b.tokenizer.decode(p.after)),repr(b.tokenizer.decode(p.target)))
    t=time.time();
    train(m,task,TrainConfig(examples=16,epochs=1,batch_size=8),tmp_path/"r"); print("train",time.time()-t)
    t=time.time();
    s=collect(m,task,ex,); print("collect",time.time()-t); print(s.text.values[:,0,0])
