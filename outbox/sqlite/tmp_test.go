package sqlite
import ("os";"testing";"time")
func TestTmpOpen(t *testing.T){
 d:=t.TempDir()
 for i:=0;i<5;i++{
 a:=time.Now()
 s,err:=Open(t.Context(),Options{Dir:d}); if err!=nil{t.Fatal(err)}
 b:=time.Now(); s.Close(); t.Log("open",b.Sub(a),"close",time.Since(b))
 }
 for i:=0;i<3;i++{
 a:=time.Now()
 s,err:=Open(t.Context(),Options{Dir:t.TempDir()}); if err!=nil{t.Fatal(err)}
 b:=time.Now(); s.Close(); t.Log("new open",b.Sub(a),"close",time.Since(b))
 }
}
func TestTmpHeader(t *testing.T){
 d:=t.TempDir()
 s,err:=Open(t.Context(),Options{Dir:d}); if err!=nil{t.Fatal(err)}
 b,_:=os.ReadFile(d+"/relay.db")
 t.Logf("%x size %d reserve %d", b[:100], len(b), b[20])
 s.Close()
}
