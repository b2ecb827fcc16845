// Command cpu measures Pagoda on this machine beside its limits and, where its programs are at hand, beside llama.cpp,
// and writes the table in docs/performance.md. `make bench-cpu` runs it.
//
//	for each shape, kind of weights and number of threads:
//	    a process of its own loads random weights of the shape (ours.go)
//	    for each round:
//	        the machine's limits
//	        for each row: ours, then llama.cpp's own benchmark programs (llama.go)
//
// So whatever drifts hits both sides alike. Each sample waits for a quiet machine and is repeated where other programs
// used the processors meanwhile; a row for which that did not help is marked, and the command fails at the end.
package main
