// Package cudrv drives NVIDIA's GPUs through the CUDA driver: devices, memory, streams, events, launches and graphs. It
// completes gorgonia.org/cu, whose devices, contexts and types it uses, with what that lacks: launches in one crossing,
// graphs, pinned memory, large shared memory, tensor maps.
//
// A program that is linked with it starts without a driver too (libcuda/libcuda.c); Available says whether there is one.
// It needs the build tag cuda, and the folders that `make cuda` names.
//
// Calls set the device's context themselves, so that any goroutine may make them on any thread. Memory and streams are
// safe for concurrent use as far as the driver's are; a stream's order is the order of the calls.
package cudrv
