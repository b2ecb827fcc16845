package kernels

// Limits is what this machine can do at most, measured in this process.
type Limits struct {
	Threads    int
	ReadGBs    float64 // memory read bandwidth, 1e9 bytes per second
	F32GFLOPs  float64 // float32 multiply-adds, two operations each, 1e9 per second
	BF16GFLOPs float64 // bfloat16 dot products likewise; 0 if the variant has no such instruction
	Int8GOPs   float64 // products of bytes and their sums, two operations each, 1e9 per second
}

// MeasureLimits takes about two seconds, on a device made for it; beside ref it measures what the best variant can do.
// Others on the machine lower the result, so compare only with what is measured in the same minute.
func MeasureLimits(o CPUOptions) (Limits, error) {
	if o.Variant == "ref" {
		o.Variant = ""
	}
	d, err := OpenCPU(o)
	if err != nil {
		return Limits{}, err
	}
	defer d.Close() //nolint:errcheck // holds nothing by then
	return measureLimits(d)
}
