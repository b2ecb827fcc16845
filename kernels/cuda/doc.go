// Package cuda has the kernels for NVIDIA's GPUs and the calls that launch them.
//
// So far these are products of bfloat16 matrices: with few rows, where the memory that holds the weights is the limit, and
// with many, where the arithmetic is. All pointers are to device memory, aligned to 16 bytes. It needs the build tag cuda
// and the compiled kernels, which `make cuda` makes.
package cuda
