package sample

// uniform is the random number in [0,1) for one output position of one sample. It is a function of its arguments, so a
// sequence is sampled the same wherever and however often it is computed.
func uniform(seed uint64, sampleIndex, position int) float64 {
	x := mix(seed + golden)
	x = mix(x ^ uint64(sampleIndex) + golden)
	x = mix(x ^ uint64(position) + golden)
	return float64(x>>11) / (1 << 53)
}

// golden is 2^64 over the golden ratio; it keeps mix away from its fixed point 0.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's finalizer: a bijection of which every output bit depends on every input bit.
// Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
