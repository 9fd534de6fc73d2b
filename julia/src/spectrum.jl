"""
    Spectrum

Eigenvalues of a kernel matrix in ascending order, and the verdict on its positivity. Made by [`spectrum`](@ref).

- `tolerance`: 10 sqrt(n) eps lambda_max, with the eps of the kernel's element type.
- `verdict`: "PSD" if no eigenvalue is negative, "rounding" if none is below `-tolerance`, else "not PSD".
- `units`: lambda_min / (eps lambda_max), so that the reader can judge.
"""
struct Spectrum
    eigenvalues::Vector{Float64}
    tolerance::Float64
    verdict::String
    units::Float64
end

"""
    spectrum(K) -> Spectrum

All eigenvalues of the symmetric matrix `K` (n, n), computed in Float64 whatever the element type of `K`.
"""
function spectrum(K::AbstractMatrix{T}) where {T<:AbstractFloat}
    size(K, 1) == size(K, 2) || throw(DimensionMismatch("a kernel matrix is square; this one is $(size(K))"))
    values = eigvals(Symmetric((Float64.(K) .+ Float64.(K)') ./ 2))
    smallest, largest = first(values), last(values)
    tolerance = 10 * sqrt(size(K, 1)) * eps(T) * abs(largest)
    verdict = smallest >= 0 ? "PSD" : smallest >= -tolerance ? "rounding" : "not PSD"
    units = largest > 0 ? smallest / (eps(T) * largest) : 0.0
    return Spectrum(values, tolerance, verdict, units)
end

function Base.show(io::IO, ::MIME"text/plain", s::Spectrum)
    print(io, @sprintf("%s: %d eigenvalues from %.6g to %.6g; smallest / (eps largest) = %.3g; tolerance %.3g", s.verdict,
        length(s.eigenvalues), first(s.eigenvalues), last(s.eigenvalues), s.units, s.tolerance))
end
