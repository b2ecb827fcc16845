#include "textflag.h"

// func plainBlocks(b []byte) (n int)
//
// SSE2, which every amd64 has. A byte is plain if, signed, it is above 0x1f, and neither quote nor backslash.
TEXT ·plainBlocks(SB), NOSPLIT, $0-32
	MOVQ       b_base+0(FP), SI
	MOVQ       b_len+8(FP), CX
	XORQ       AX, AX
	MOVQ       $0x1f1f1f1f1f1f1f1f, DX
	MOVQ       DX, X12
	PUNPCKLQDQ X12, X12
	MOVQ       $0x2222222222222222, DX // quote
	MOVQ       DX, X13
	PUNPCKLQDQ X13, X13
	MOVQ       $0x5c5c5c5c5c5c5c5c, DX // backslash
	MOVQ       DX, X14
	PUNPCKLQDQ X14, X14

#define CHECK(offset, x, quote, slash) \
	MOVOU   offset(SI), x \
	MOVO    x, quote \
	MOVO    x, slash \
	PCMPEQB X13, quote \
	PCMPEQB X14, slash \
	PCMPGTB X12, x \
	POR     slash, quote \
	PANDN   x, quote // the plain ones

block:
	CMPQ CX, $64
	JLT  done
	CHECK(0, X0, X1, X2)
	CHECK(16, X3, X4, X5)
	CHECK(32, X6, X7, X8)
	CHECK(48, X9, X10, X11)
	PAND     X4, X1
	PAND     X10, X7
	PAND     X7, X1
	PMOVMSKB X1, DX
	CMPL     DX, $0xffff
	JNE      done
	ADDQ     $64, SI
	ADDQ     $64, AX
	SUBQ     $64, CX
	JMP      block

done:
	MOVQ AX, n+24(FP)
	RET
