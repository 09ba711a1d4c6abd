#pragma once
// A graph of five nodes with skips: what `a` makes is used by three, what `b` makes by two, `d`
// makes two values, batch norm and dropout stand in it, `c` has the weights of `b`, and `e` takes a
// mask without a gradient.

#include <string>

namespace ecopipe::test {

inline std::string small_graph() {
    return R"({"format":"ecopipe-graph/1","made_by":"by hand","aten":"1.13",
"inputs":[{"name":"x","dtype":"F32","shape":["B",3,8,8]}],
"values":{
 "a":{"dtype":"F32","shape":["B",4,8,8],"gradient":true},
 "b":{"dtype":"F32","shape":["B",4,8,8],"gradient":true},
 "c":{"dtype":"F32","shape":["B",4,8,8],"gradient":true},
 "d:0":{"dtype":"F32","shape":["B",4,8,8],"gradient":true},
 "d:1":{"dtype":"BOOL","shape":["B",4,8,8],"gradient":false},
 "e":{"dtype":"F32","shape":["B",10],"gradient":true}},
"nodes":[
 {"name":"a","kind":"Conv2d","in":["x"],"out":[["a",1]],"tensors":["a.weight","a.bias","a.bn.running_mean","a.bn.running_var"],"ops":[
  ["aten::conv2d",["%x","@a.weight","@a.bias",[1,1],[1,1]],{},1],
  ["aten::batch_norm",["%0",null,null,"@a.bn.running_mean","@a.bn.running_var",{"training":true,"evaluation":false},0.1,1e-05,false],{},1]]},
 {"name":"b","kind":"Conv2d","in":["a"],"out":[["b",1]],"tensors":["b.weight"],"ops":[
  ["aten::conv2d",["%a","@b.weight",null,[1,1],[1,1]],{},1],
  ["aten::relu",["%0"],{},1]]},
 {"name":"c","kind":"Conv2d","in":["a","b"],"out":[["c",2]],"tensors":["b.weight"],"ops":[
  ["aten::conv2d",["%b","@b.weight",null,[1,1],[1,1]],{},1],
  ["ecopipe::dropout",["%0",0.25],{},1],
  ["aten::add.Tensor",["%1","%a"],{},1]]},
 {"name":"d","kind":"Mix","in":["a","b","c"],"out":[["d:0",1],["d:1",2]],"tensors":["d.weight"],"ops":[
  ["aten::cat",[["%a","%b","%c"],1],{},1],
  ["aten::conv2d",["%0","@d.weight"],{},1],
  ["aten::gt.Scalar",["%1",0],{},1]]},
 {"name":"e","kind":"Head","in":["d:0","d:1"],"out":[["e",4]],"tensors":["e.weight","e.bias"],"ops":[
  ["aten::where.self",["%d:1","%d:0",0.5],{},1],
  ["aten::mul.Scalar",["%0",2],{},1],
  ["aten::mean.dim",["%1",[2,3]],{},1],
  ["aten::view",["%2",[{"batch":1},4]],{},1],
  ["aten::linear",["%3","@e.weight","@e.bias"],{},1]]}],
"outputs":["e"],
"tensors":{
 "a.weight":{"dtype":"F32","shape":[4,3,3,3],"kind":"parameter"},
 "a.bias":{"dtype":"F32","shape":[4],"kind":"parameter"},
 "a.bn.running_mean":{"dtype":"F32","shape":[4],"kind":"buffer"},
 "a.bn.running_var":{"dtype":"F32","shape":[4],"kind":"buffer"},
 "b.weight":{"dtype":"F32","shape":[4,4,3,3],"kind":"parameter"},
 "d.weight":{"dtype":"F32","shape":[4,12,1,1],"kind":"parameter"},
 "e.weight":{"dtype":"F32","shape":[10,4],"kind":"parameter"},
 "e.bias":{"dtype":"F32","shape":[10],"kind":"parameter"}},
"tied":[],"proof":{}})";
}

}  // namespace ecopipe::test
