package kernels

// Limits is what this machine can do at most, measured in this process.
type Limits struct {
	Threads    int
	ReadGBs    float64 // memory read bandwidth, 1e9 bytes per second
	F32GFLOPs  float64 // float32 multiply-adds, two operations each, 1e9 per second
	BF16GFLOPs float64 // bfloat16 dot products likewise; 0 if the machine has no such instruction
}

// MeasureLimits takes about two seconds. threads 0 means as many as OpenCPU would use. Others on the machine lower
// the result, so compare only with what is measured in the same minute.
func MeasureLimits(threads int) (Limits, error) { return measureLimits(threads) }
